"""Merge the deltas of several shards into one. Every algorithm uses every shard."""

from collections.abc import Callable

import torch
from torch import Tensor

MERGES = ("ties", "dare_ties", "magnitude", "sign", "linear", "slerp")


def merge(deltas: Tensor, method: str, keep: float, seed: int = 0) -> Tensor:
    """One delta of many.

    Args:
        deltas: `[k, ...]`, what each shard adds to the weight; 0 outside its mask.
        method: "linear", the mean; "slerp", spherical interpolation, one shard after the other with weight 1/i;
            "magnitude", the mean of what trimming leaves; "sign", at each place the mean of the shards that agree
            with the elected sign; "ties", trimming and then "sign" (arXiv 2306.01708, algorithm 1); "dare_ties",
            random dropping with rescaling (arXiv 2311.03099, equation 2) and then "sign".
        keep: share of each shard's places that trimming or dropping leaves.
        seed: of the dropping.

    Returns:
        `[...]`, in the dtype of `deltas`.
    """
    algorithms: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": lambda given: given.mean(0),
        "slerp": _slerp,
        "magnitude": lambda given: _trim(given, keep).mean(0),
        "sign": _elected_mean,
        "ties": lambda given: _elected_mean(_trim(given, keep)),
        "dare_ties": lambda given: _elected_mean(_drop(given, keep, seed)),
    }
    return algorithms[method](deltas.float()).to(deltas.dtype)


def _trim(deltas: Tensor, keep: float) -> Tensor:
    """Of each shard the largest `keep` of its places, 0 elsewhere."""
    flat = deltas.flatten(1)
    kept = torch.zeros_like(flat)
    for row, values in zip(kept, flat, strict=True):
        count = round(keep * int((values != 0).sum()))
        top = values.abs().topk(count).indices
        row[top] = values[top]
    return kept.view_as(deltas)


def _drop(deltas: Tensor, keep: float, seed: int) -> Tensor:
    """Each place kept with probability `keep` and scaled up by its inverse, so that the expectation is the same."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(deltas.shape, generator=generator, dtype=torch.float32) < keep
    return deltas * kept.to(deltas.device) / keep


def _elected_mean(deltas: Tensor) -> Tensor:
    """At each place the mean of the shards that have the sign of the sum of all."""
    agreeing = deltas * (deltas * deltas.sum(0) > 0)
    return agreeing.sum(0) / (agreeing != 0).sum(0).clamp(min=1)


def _slerp(deltas: Tensor) -> Tensor:
    merged = deltas[0]
    for number, delta in enumerate(deltas[1:], 2):
        merged = _between(merged, delta, 1 / number)
    return merged


def _between(one: Tensor, other: Tensor, share: float) -> Tensor:
    """On the arc from `one` to `other`; on the line between them where there is no arc."""
    cosine = (one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-12)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    if float(sine) < 1e-4 or not (one.any() and other.any()):
        return torch.lerp(one, other, share)
    return (((1 - share) * angle).sin() * one + (share * angle).sin() * other) / sine
