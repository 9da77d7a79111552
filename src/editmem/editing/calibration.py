"""What memories are calibrated with: built-in prompts and pictures, as the host sees them."""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from editmem.editing.encoder import Encoder
from editmem.editing.progress import Progress, preparing
from editmem.edits.edit import Prompt
from editmem.edits.image import Picture
from editmem.hosts.forward import OUTPUT
from editmem.memory import Calibration, Prompts, Seen
from editmem.routing.prompts import hard_negatives, neutral_prompts
from editmem.text.vocabulary import Vocabulary
from editmem.tiny.emblems import View, picture, unused

Read = Callable[[Sequence[Sequence[int]], Sequence[Mapping[str, Any]]], Prompts]

Group = Sequence[tuple[Prompt, Picture | None]]

PICTURES, VIEWS, ASKED = 48, 4, 8
CHUNK = 32
"""Prompts that are read at once."""
SHOWN = "What is this?"
SUBJECT = "the one in the picture"
"""In place of the name, where built-in questions are about a picture."""


def calibration(
    encode: Encoder,
    read: Read,
    vocabulary: Vocabulary,
    pictured: bool,
    progress: Progress = None,
) -> Calibration:
    """Built-in prompts and, where there are edits of pictures, built-in pictures, if there is a processor.

    Args:
        encode: of the host.
        read: what the site sees of a few prompts.
        vocabulary: of the tokenizer.
        pictured: whether the memory's edits may have pictures.
        progress: as `Editor.edit` takes it.
    """
    names, forms = hard_negatives()
    neutral = _renderings(encode, neutral_prompts())
    alike = _renderings(encode, [form.format(name) for name in names for form in forms])
    sights = _sights(encode, forms) if pictured and encode.processor is not None else []
    groups = [*neutral, *alike, *sights]
    with preparing(progress, sum(map(len, groups)), "calibrating") as advance:
        prompts = iter([_read(encode, read, group, advance) for group in groups])
    seen_neutral, seen_alike = ([next(prompts) for _ in part] for part in (neutral, alike))
    seen = Seen(next(prompts), PICTURES, list(prompts), ASKED) if sights else None
    return Calibration(seen_neutral, seen_alike, len(names), vocabulary, seen)


def _renderings(encode: Encoder, prompts: Sequence[str], pictures: Sequence[Picture] | None = None) -> list[Group]:
    turns: list[Prompt] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    shown: Sequence[Picture | None] = pictures or [None] * len(prompts)
    ways: list[Sequence[Prompt]] = [prompts, turns] if encode.has_chat_template else [prompts]
    return [list(zip(way, shown, strict=True)) for way in ways]


def _sights(encode: Encoder, forms: Sequence[str]) -> list[Group]:
    """Built-in pictures in several views; then, for each rendering, questions about some of them."""
    rng = random.Random(0)
    shown = [[Picture.of(picture(emblem, View.draw(rng))) for _ in range(VIEWS)] for emblem in unused(PICTURES)]
    views: Group = [(SHOWN, view) for views in shown for view in views]
    questions = [form.format(SUBJECT) for form in forms]
    about = [views[0] for views in shown[:ASKED] for _ in questions]
    return [views, *_renderings(encode, questions * ASKED, about)]


def _read(encode: Encoder, read: Read, group: Group, advance: Callable[[int], None]) -> Prompts:
    """What the site sees of a group of prompts, read a few at a time: memory is bounded, and a bar can move."""
    parts = []
    for start in range(0, len(group), CHUNK):
        chunk = group[start : start + CHUNK]
        seen = [(encode.prompt(p), {}) if view is None else encode.seen(p, view) for p, view in chunk]
        vision = [part for _, part in seen if part]
        parts.append(read([ids for ids, _ in seen], vision))
        advance(len(chunk))
    return joined(parts)


def joined(parts: Sequence[Prompts]) -> Prompts:
    """Batches of prompts, each ending in its last column, as one."""
    calls = [part.call for part in parts]
    width = max(call.real.shape[1] for call in calls)

    def together(tensors: Sequence[Tensor | None], fill: int = 0) -> Any:
        known = [tensor for tensor in tensors if tensor is not None]
        return torch.cat([_widened(tensor, width, fill) for tensor in known]) if len(known) == len(parts) else None

    first = calls[0]
    call = dataclasses.replace(
        first,
        real=together([call.real for call in calls]),
        tokens=together([call.tokens for call in calls]),
        step=together([call.step for call in calls], -width - 1),
        tail=torch.cat([call.tail for call in calls if call.tail is not None]) if first.tail is not None else None,
        noted={name: _noted([call.noted[name] for call in calls], name, width) for name in first.noted},
    )
    return Prompts(together([part.x for part in parts]), together([part.out for part in parts]), call)


def _noted(tensors: Sequence[Tensor], name: str, width: int) -> Tensor:
    """What several forwards noted under one name; what came out of modules has no columns of the text."""
    return torch.cat([part if name.endswith(OUTPUT) else _widened(part, width, 0) for part in tensors])


def _widened(tensor: Tensor, width: int, fill: int) -> Tensor:
    """`[B, T, ...]` with columns in front."""
    return nn.functional.pad(tensor, (*[0, 0] * (tensor.ndim - 2), width - tensor.shape[1], 0), value=fill)
