"""Methods that change weights of the host: how the changes are kept, switched off and saved."""

import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from benchmarks.baselines.encoding import Batch, Row, collate, encode, padding, without_repeats
from benchmarks.baselines.sites import Site
from benchmarks.folder import write_atomically
from benchmarks.records import Record
from benchmarks.session import Session, no_grad_host

FILE = "edits.safetensors"
RECORDS = "records.json"
KEPT = ("id", "prompt", "target", "subject")


def save_tensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write tensors to a folder by way of a temporary file."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.new"
    temporary.write_bytes(packed(tensors))
    os.replace(temporary, folder / FILE)


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors keep them."""
    return safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def load_tensors(folder: Path, device: torch.device) -> dict[str, Tensor]:
    """The inverse of `save_tensors`."""
    return safetensors.torch.load_file(folder / FILE, device=str(device))


class Batches(Session):
    """A session that learns edits in batches, each after those before it.

    Attributes:
        together: how many edits are learned together.
    """

    together: int

    @abstractmethod
    def learn(self, records: Sequence[Record]) -> None:
        """Make edits of different prompts together."""

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        took: list[bool | None] = []
        for part in without_repeats(records):
            for start in range(0, len(part), self.together):
                chunk = part[start : start + self.together]
                self.learn(chunk)
                took += self.took(self.batch(self.rows(chunk)))
        return took

    def rows(self, records: Sequence[Record]) -> list[Row]:
        return [encode(self.tokenizer, r.prompt, r.target, r.subject) for r in records]

    def batch(self, rows: Sequence[Row]) -> Batch:
        return collate(rows, padding(self.tokenizer), self.model.device)

    def took(self, batch: Batch) -> list[bool | None]:
        """Whether greedy decoding gives each target, checked token by token."""
        with torch.no_grad():
            return batch.greedy(batch.logits(self.model)).tolist()


class WeightEdits(Batches):
    """A session whose edits are in the weights of some sites.

    `matrices` holds them in float32, whatever the host computes in, so that small changes add up.

    Args:
        chosen: the sites.
        model, tokenizer, options, seed: as of `Session`.
    """

    def __init__(self, chosen: Sequence[Site], model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int):
        super().__init__(model, tokenizer, options, seed)
        self.sites = list(chosen)
        self.before = {site.path: site.module.weight.detach().clone() for site in self.sites}
        self.matrices = {site.path: site.matrix() for site in self.sites}

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        with no_grad_host(self.model):
            return super().write(records)

    def put(self, site: Site, matrix: Tensor) -> None:
        """Give a site a new weight, `[D_out, D_in]`, float32."""
        self.matrices[site.path] = matrix
        site.put(matrix)

    def state(self) -> dict[str, Tensor]:
        """Further tensors that the method goes on from."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""

    def save(self, folder: Path) -> None:
        save_tensors(self._tensors(), folder)

    def _tensors(self) -> dict[str, Tensor]:
        weights = {f"weight.{path}": matrix for path, matrix in self.matrices.items()}
        return weights | {f"state.{name}": tensor for name, tensor in self.state().items()}

    def restore(self, folder: Path) -> None:
        tensors = load_tensors(folder, self.model.device)
        for site in self.sites:
            self.put(site, tensors[f"weight.{site.path}"])
        kept = {name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")}
        self.load_state(kept)

    def bytes(self) -> int:
        return len(packed(self._tensors()))

    @contextmanager
    def off(self) -> Iterator[None]:
        edited = {site.path: site.module.weight.detach().clone() for site in self.sites}
        self._set(self.before)
        try:
            yield
        finally:
            self._set(edited)

    def _set(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for site in self.sites:
                site.module.weight.copy_(weights[site.path])


class JointEdits(WeightEdits):
    """A session that works its weights out of the unedited ones and all edits so far, whenever edits come.

    Attributes:
        records: the edits in force, by prompt.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.records: dict[str, Record] = {}

    def write(self, records: Sequence[Record]) -> list[bool | None]:
        for record in records:
            self.records.pop(record.prompt, None)
            self.records[record.prompt] = record
        return super().write(records)

    def save(self, folder: Path) -> None:
        super().save(folder)
        kept = [{name: value for name, value in asdict(r).items() if name in KEPT} for r in self.records.values()]
        write_atomically(folder / RECORDS, json.dumps(kept, ensure_ascii=False))

    def restore(self, folder: Path) -> None:
        super().restore(folder)
        kept = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
        self.records = {fields["prompt"]: Record(**fields, answers=(fields["target"],)) for fields in kept}
