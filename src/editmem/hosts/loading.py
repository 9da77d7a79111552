"""Load a host and its tokenizer or processor by name, for command lines."""

import logging
import warnings
from typing import Any

from editmem.real import GEMMA, real
from editmem.tiny import tiny


def load_host(name: str) -> tuple[Any, Any]:
    """A host with its tokenizer or processor: a folder or Hub id, or one that a package brings.

    Those are the embedded models, `tiny` and `tiny-vision`, and what the extra `real` installs, `gemma-270m`.
    """
    _import_models()
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if name in ("tiny", "tiny-vision"):
        return tiny(vision=True) if name == "tiny-vision" else tiny()
    if name == GEMMA.name:
        return real()
    if hasattr(transformers.AutoConfig.from_pretrained(name), "vision_config"):
        model = transformers.AutoModelForImageTextToText.from_pretrained(name, dtype="auto").eval()
        return model, transformers.AutoProcessor.from_pretrained(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype="auto").eval()
    return model, transformers.AutoTokenizer.from_pretrained(name)


def _import_models() -> None:
    """Transformers' models, without what is remarked while they import whatever else is installed."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers import PreTrainedModel  # noqa: F401
    finally:
        logging.disable(logging.NOTSET)
