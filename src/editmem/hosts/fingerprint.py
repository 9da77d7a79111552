"""What a saved memory must find again: the host's architecture, its shapes, and samples of all its weights.

A memory fits one set of weights: another fine-tune of the same base has other states. The same weights come in several
dtypes, quantised, with adapters around them, or offloaded, and are known again: samples are compared as closely as
both sides' precision allows.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from editmem.hosts.offload import stored
from editmem.hosts.structure import Host

SAMPLES = 1024
"""Values of a block, or of all that is outside of the blocks, shared among its weights."""
FEWEST = 8
"""Values of each weight, however many share."""
QUANTISED = "quantised"
COSINE = 0.95
"""Least cosine of a weight's samples where one side was quantised: this much is lost at four bits."""


def fingerprint(host: Host) -> dict[str, Any]:
    """Plain data, as JSON can hold it.

    Raises:
        HostError: if the weights have no values.
    """
    return {**_shapes(host), "weights": _samples(host)}


def differences(saved: Mapping[str, Any], host: Host) -> list[str]:
    """What of a saved fingerprint the host does not have; empty where it is the same host."""
    shapes = _shapes(host)
    found = [
        f"its {name} is {saved[name]!r}, this model's is {value!r}"
        for name, value in shapes.items()
        if saved.get(name) != value
    ]
    if found:
        return found
    if "weights" in saved:
        here, none = _samples(host), {"precision": "float32", "values": {}}
        groups = [*saved["weights"], *(here.keys() - saved["weights"].keys())]
        others = [w for g in groups for w in _others(saved["weights"].get(g, none), here.get(g, none))]
        return [f"{len(others)} of its weights are others, such as {others[0]}"] if others else []
    if saved.get("embedding_sample") != embedding_sample(host):  # as written before there were samples of all weights
        return ["the embeddings are others"]
    return []


def _shapes(host: Host) -> dict[str, Any]:
    return {
        "architecture": _architecture(type(host.model)),
        "hidden_size": host.hidden_size,
        "num_blocks": len(host.blocks),
        "vocab_size": host.vocabulary,
    }


def _architecture(kind: type) -> str:
    """The name of a model's class, before `fully_shard` or `parametrize` made another of it."""
    made = (base for base in kind.__mro__ if kind.__name__ in (f"FSDP{base.__name__}", f"Parametrized{base.__name__}"))
    return next(made, kind).__name__


def embedding_sample(host: Host) -> str:
    embedding = stored(host.model, host.embedding).detach()
    sample = embedding[:: max(1, embedding.shape[0] // 64), :64].float().cpu().contiguous()
    return hashlib.sha256(sample.to(torch.bfloat16).view(torch.int16).numpy().tobytes()).hexdigest()


def _samples(host: Host) -> dict[str, dict[str, Any]]:
    """Of each block, and of the rest as "": the precision of its weights, and some of the values of each."""
    groups: dict[str, dict[str, str]] = {}
    for path, name in _weights(host.model, "", ""):
        group = host.block_of(name) if name.startswith(f"{host.blocks_path}.") else ""
        groups.setdefault(group, {})[path] = name
    return {group: _sample(host, weights) for group, weights in groups.items()}


def _weights(module: nn.Module, path: str, name: str) -> Iterator[tuple[str, str]]:
    """The weights of a module, not those of adapters: their paths, and their names without adapters around them."""
    for inside in ("base_layer", "original_module"):  # of PEFT
        if isinstance(inner := getattr(module, inside, None), nn.Module):
            yield from _weights(inner, f"{path}{inside}.", name)
            return
    for own, _ in module.named_parameters(recurse=False):
        yield f"{path}{own}", f"{name}{own}"
    for own, child in module.named_children():
        yield from _weights(child, f"{path}{own}.", f"{name}{own}.")


def _sample(host: Host, weights: Mapping[str, str]) -> dict[str, Any]:
    count = max(FEWEST, SAMPLES // len(weights))
    precisions, values = {QUANTISED: False, "float16": False}, {}
    for path, name in weights.items():
        weight, precision = _plain(stored(host.model, path).detach())
        precisions[precision] = True
        if weight is not None:
            values[name] = _written(weight, count)
    return {"precision": next(name for name, there in precisions.items() if there), "values": values}


def _plain(weight: Tensor) -> tuple[Tensor | None, str]:
    """A weight as plain numbers, if it can be told what they are, and its precision."""
    if hasattr(weight, "full_tensor"):  # sharded over processes
        weight = weight.full_tensor()
    precision = str(weight.dtype).removeprefix("torch.")
    if type(weight) is not Tensor and hasattr(weight, "__tensor_flatten__"):  # many numbers in a dtype of their own
        return weight.dequantize(), QUANTISED
    if not weight.is_floating_point() or weight.element_size() == 1:
        return None, QUANTISED
    return weight, precision if precision in ("float16", "bfloat16") else "float32"


def _written(weight: Tensor, count: int) -> str:
    """Values at places spread over a weight, as bfloat16 in base64."""
    flat = weight.reshape(-1)
    places = torch.linspace(0, flat.shape[0] - 1, min(count, flat.shape[0]), dtype=torch.float64).long()
    values = flat[places.to(flat.device)].float().cpu().to(torch.bfloat16).view(torch.int16).numpy()
    return base64.b64encode(values.astype("<i2").tobytes()).decode()


def _read(values: str) -> Tensor:
    whole = np.frombuffer(base64.b64decode(values), dtype="<i2").astype(np.int16)
    return torch.from_numpy(whole).view(torch.bfloat16).float()


def _others(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The weights of a group that are not the same in both."""
    precisions = {one["precision"], other["precision"]}
    both = one["values"].keys() & other["values"].keys()
    alone = set() if QUANTISED in precisions else one["values"].keys() ^ other["values"].keys()
    far = {name for name in both if not _near(_read(one["values"][name]), _read(other["values"][name]), precisions)}
    return sorted(alone | far)


def _near(a: Tensor, b: Tensor, precisions: set[str]) -> bool:
    if a.shape != b.shape:
        return False
    if QUANTISED in precisions:
        return float(a @ b) >= COSINE * float(a.norm() * b.norm())
    if "float16" in precisions:  # rounded twice, and the smallest values are coarse
        return bool(((a - b).abs() <= 2**-7 * a.abs() + 2**-24).all())
    return torch.equal(a, b)
