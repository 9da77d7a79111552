"""The embedded model: small, trained, offline. It knows the facts of `editmem.tiny.world`."""

from importlib import resources
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def tiny() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """The embedded model and its tokenizer: a Llama of 3M parameters that knows 2,809 facts.

    Returns:
        A `LlamaForCausalLM` in float32 and evaluation mode, and its tokenizer (pads on the left, has a chat
        template). Made by `python -m editmem.tiny.build`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with resources.as_file(resources.files(__package__).joinpath("model")) as folder:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer
