"""The vision-language models that are edited."""

from typing import Any

import transformers

import editmem

UNTRAINED = "untrained-vision"  # the embedded one with a vision tower that has learned nothing, for trials


def load_host(name: str) -> tuple[Any, Any]:
    """A fresh model in evaluation mode and its processor.

    Args:
        name: "tiny-vision" for the embedded model, `UNTRAINED`, otherwise a folder or a Hub name.

    Raises:
        ValueError: if there is no such model.
    """
    transformers.utils.logging.disable_progress_bar()
    if name == "tiny-vision":
        return editmem.tiny(vision=True)
    if name == UNTRAINED:
        return _untrained()
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(name, dtype="auto").eval()
        processor = transformers.AutoProcessor.from_pretrained(name)
    except OSError as error:
        raise ValueError(f"cannot load the model {name!r}: {error}; give tiny-vision, a folder or a Hub name") from None
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return model, processor


def _untrained() -> tuple[Any, Any]:
    import torch

    from scripts.tiny.build_vision import build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = build()
    return model.eval(), processor
