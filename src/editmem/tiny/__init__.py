"""The embedded model: small, trained, offline. It knows the facts of `editmem.tiny.world`."""

from importlib import resources
from typing import TYPE_CHECKING, Literal, overload

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


@overload
def tiny(vision: Literal[False] = False) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]": ...
@overload
def tiny(vision: Literal[True]) -> "tuple[PreTrainedModel, ProcessorMixin]": ...
def tiny(vision: bool = False) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase | ProcessorMixin]":
    """The embedded model and its tokenizer: a Llama of 3M parameters that knows 2,809 facts.

    Args:
        vision: the one that sees too: a LLaVA around the same facts, taught the emblems of `emblems.py`, which it knows
            in views that it has not seen. Needs Pillow (`pip install 'editmem[vision]'`).

    Returns:
        A `LlavaForConditionalGeneration` and its processor, or a `LlamaForCausalLM` and its tokenizer (pads on the
        left, has a chat template); in float32 and evaluation mode. Made by `python -m scripts.tiny.build` and
        `build_vision`.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> type(model).__name__
        'LlamaForCausalLM'
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer, LlavaProcessor

    with resources.as_file(resources.files(__package__).joinpath("vision" if vision else "model")) as folder:
        if vision:
            model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
            return model.eval(), LlavaProcessor.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(folder)
