"""What memories are calibrated with: built-in prompts and pictures, as the host sees them."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editmem.edit import Prompt
from editmem.encoding import Encoder
from editmem.memory.base import Calibration, Prompts, Seen
from editmem.picture import Picture
from editmem.prompts import alike_prompts, neutral_prompts
from editmem.tiny.emblems import View, picture, unused
from editmem.words import Words

Read = Callable[[Sequence[Sequence[int]], Sequence[Mapping[str, Any]]], Prompts]

PICTURES, VIEWS, ASKED = 48, 4, 8
SHOWN = "What is this?"
SUBJECT = "the one in the picture"
"""In place of the name, where built-in questions are about a picture."""


def calibration(encode: Encoder, read: Read, words: Words, pictured: bool) -> Calibration:
    """Built-in prompts and, where there are edits of pictures, built-in pictures, if there is a processor."""
    names, forms = alike_prompts()
    every = [form.format(name) for name in names for form in forms]
    neutral = [read([encode.prompt(p) for p in group], ()) for group in _renderings(encode, neutral_prompts())]
    alike = [read([encode.prompt(p) for p in group], ()) for group in _renderings(encode, every)]
    seen = _seen(encode, read, forms) if pictured and encode.processor is not None else None
    return Calibration(neutral, alike, len(names), words, seen)


def _renderings(encode: Encoder, prompts: Sequence[str]) -> list[list[Prompt]]:
    turns: list[Prompt] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return [list(prompts), turns] if encode.has_chat_template else [list(prompts)]


def _seen(encode: Encoder, read: Read, forms: Sequence[str]) -> Seen:
    rng = random.Random(0)
    shown = [[Picture.of(picture(emblem, View.draw(rng))) for _ in range(VIEWS)] for emblem in unused(PICTURES)]
    views = _look(encode, read, [SHOWN] * (PICTURES * VIEWS), [view for views in shown for view in views])
    questions = [form.format(SUBJECT) for form in forms]
    asked = [question for _ in range(ASKED) for question in questions]
    about = [views[0] for views in shown[:ASKED] for _ in questions]
    return Seen(views, PICTURES, [_look(encode, read, group, about) for group in _renderings(encode, asked)], ASKED)


def _look(encode: Encoder, read: Read, prompts: Sequence[Prompt], pictures: Sequence[Picture]) -> Prompts:
    seen = [encode.seen(prompt, picture) for prompt, picture in zip(prompts, pictures, strict=True)]
    return read([ids for ids, _ in seen], [vision for _, vision in seen])
