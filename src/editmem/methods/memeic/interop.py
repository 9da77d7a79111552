"""Adapters and connectors in PEFT's format: written for other tools, and read from what others have trained."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from editmem.editor import Editor, changes_of
from editmem.errors import CheckpointError, SpecError
from editmem.methods.memeic.memory import MemeicMemory
from editmem.state import restore
from editmem.storage import atomic as folders

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PARTS = ("visual", "textual", "connector")
Weights = Mapping[str, tuple[Tensor, Tensor]]  # by path of the linear map: A [r, D] and B [d, r]


def save(editor: Editor, folder: str | Path) -> list[str]:
    """Write the shared adapters, and the connector if there is one, as PEFT adapters that `PeftModel` loads.

    In `PeftModel` an adapter acts on every token of every prompt; here it acts where an edit does.

    Args:
        editor: of a memory with `storage="shared"`, or with a connector.
        folder: gets a folder for each of "visual", "textual" and "connector".

    Returns:
        which of them were written.

    Raises:
        SpecError: if the memory has neither.
    """
    memory = _memory(editor)
    written: dict[str, tuple[Weights, int, float]] = {}
    if memory.adapters is not None and not memory.adapters.per_edit:
        adapters = memory.adapters
        for row, part in enumerate(PARTS[:2]):
            learned = {m.path: (m.down.data[row], m.up.data[row]) for m in adapters.maps}
            written[part] = learned, adapters.rank, adapters.scale * adapters.rank
    if (connector := memory.connector) is not None:
        pairs = zip(connector.paths, connector.down, connector.up, strict=True)
        adapted = {path: (down.detach(), up.detach()) for path, down, up in pairs}
        rank = memory.spec.connector_rank
        written["connector"] = adapted, rank, connector.scale * rank
    if not written:
        raise SpecError("there is nothing to write: adapters are per edit, and there is no connector")
    for part, (weights, rank, alpha) in written.items():
        base = str(changes_of(editor).host.model.name_or_path)
        folders.replace(Path(folder) / part, functools.partial(_write, weights, rank, alpha, base))
    return list(written)


def _write(weights: Weights, rank: int, alpha: float, base: str, folder: Path) -> None:
    from peft import LoraConfig

    tensors = {}
    for path, (down, up) in weights.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = down.cpu().contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = up.cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a fraction is as good
        target_modules=sorted(weights),
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))


def load(editor: Editor, folder: str | Path, part: str) -> None:
    """Take over a PEFT adapter that was trained on the same architecture, under whatever name its model had there.

    Layers are matched from `layers.N` (or `h.N`) on, so that `model.layers.3.mlp.up_proj` of a research program's class
    is found in `model.language_model.layers.3.mlp.up_proj`. MemEIC's published adapters load like this.

    Args:
        editor: of a memory with `storage="shared"` (for "visual" and "textual") or with a connector.
        folder: with adapter_config.json and adapter_model.safetensors.
        part: "visual", "textual" or "connector".

    Raises:
        SpecError: if the memory has no such part.
        CheckpointError: if the folder cannot be read, or its weights are not those of this host's sites, of this rank
            and scale; nothing is changed then.
    """
    if part not in PARTS:
        raise SpecError(f"part must be one of {PARTS}, got {part!r}")
    memory, weights, scale = _memory(editor), *_read(Path(folder))
    if part == "connector":
        connector = memory.connector
        if connector is None:
            raise SpecError("this memory has no connector; wrap the model with MemeicSpec(connector=True)")
        found = _matched(weights, connector.paths, connector.down[0].shape[0], scale, connector.scale)
        taken = {f"held.{i}.{n}": t for i, pair in enumerate(found) for n, t in zip(("down", "up"), pair, strict=True)}
        with changes_of(editor).slots.gate.editing(), changes_of(editor).slots.gate.changing():
            restore(connector, taken)
        return
    adapters = memory.adapters
    if adapters is None or adapters.per_edit:
        raise SpecError("this memory has no shared adapters; wrap the model with MemeicSpec(storage='shared')")
    found = _matched(weights, [m.path for m in adapters.maps], adapters.rank, scale, adapters.scale)
    row = PARTS.index(part)
    with changes_of(editor).slots.gate.editing(), changes_of(editor).whole(), changes_of(editor).slots.gate.changing():
        for low_rank, (down, up) in zip(adapters.maps, found, strict=True):
            low_rank.down.put(row, down.to(low_rank.down.data))
            low_rank.up.put(row, up.to(low_rank.up.data))


def _memory(editor: Editor) -> MemeicMemory:
    for writer in changes_of(editor).writers:
        if isinstance(memory := writer.memory, MemeicMemory):
            return memory
    raise SpecError(f"{editor.specs[0].method!r} has no adapters; wrap the model with 'memeic'")


def _read(folder: Path) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
    """A and B by the linear map's name from its layer on, and alpha / rank."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        scale = float(config["lora_alpha"]) / float(config["r"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: not a PEFT adapter: {error}") from error
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if match := re.fullmatch(r"(.*)\.lora_([AB])(?:\.\w+)?\.weight", key):
            halves.setdefault(_from_layer(match[1]), {})[match[2]] = tensor
    return {name: (half["A"], half["B"]) for name, half in halves.items() if len(half) == 2}, scale


def _from_layer(path: str) -> str:
    match = re.search(r"\b(?:layers|h|blocks)\.\d+\..*$", path)
    return match[0] if match else path


def _matched(
    weights: Mapping[str, tuple[Tensor, Tensor]], paths: Sequence[str], rank: int, scale: float, own_scale: float
) -> list[tuple[Tensor, Tensor]]:
    missing = [path for path in paths if _from_layer(path) not in weights]
    if missing:
        raise CheckpointError(
            f"the adapter has no weights for {len(missing)} of {len(paths)} sites, such as {missing[0]}; it has "
            f"{', '.join(sorted(weights)[:3]) or 'none at all'}. Is it for another architecture, or for fewer layers "
            "(`start` in the spec)?"
        )
    found = [weights[_from_layer(path)] for path in paths]
    ranks = {down.shape[0] for down, _ in found}
    if ranks != {rank}:
        raise CheckpointError(f"the adapter has rank {sorted(ranks)}, this memory {rank}; set the rank in the spec")
    return [(down, up * torch.tensor(scale / own_scale, dtype=up.dtype)) for down, up in found]
