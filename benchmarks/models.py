"""The hosts that are edited."""

from typing import Any

import transformers

import editmem


def load_host(name: str) -> tuple[Any, Any]:
    """A fresh model in evaluation mode and its tokenizer.

    Args:
        name: "tiny" for the embedded model; otherwise a folder or a Hub name.

    Raises:
        ValueError: if there is no such model.
    """
    transformers.utils.logging.disable_progress_bar()
    if name == "tiny":
        return editmem.tiny()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype="auto").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise ValueError(f"cannot load the model {name!r}: {error}; give tiny, a folder or a Hub name") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
