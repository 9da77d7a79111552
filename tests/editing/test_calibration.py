"""What memories are calibrated with is read a few prompts at a time, in sight."""

from typing import ClassVar

import pytest
import torch

import editmem
from editmem.editing import calibration as calibrating
from editmem.editing import progress
from editmem.editor import changes_of


class Bar:
    """Stands for tqdm's; notes how it was made, and what it was told."""

    made: ClassVar[list] = []

    def __init__(self, **options):
        self.options, self.steps = options, []
        Bar.made.append(self)

    def update(self, count):
        self.steps.append(count)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr(Bar, "made", [])
    return Bar.made


def edited(**options):
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, editmem.MemoirSpec(router="names"), tokenizer=tokenizer)
    editor.edit([("The capital of Australia is", "Sydney")], **options)
    return editor


def test_a_bar_that_moves_where_it_takes_long(bars):
    editor = edited()
    (bar,) = [bar for bar in bars if bar.options["desc"] == "calibrating"]
    assert bar.options["delay"] == 2.0
    assert not bar.options["disable"]
    assert sum(bar.steps) == bar.options["total"] > 10 * calibrating.CHUNK
    assert max(bar.steps) == calibrating.CHUNK
    editor.edit("The capital of Japan is", "Osaka")
    assert len([bar for bar in bars if bar.options["desc"] == "calibrating"]) == 1


def test_what_the_caller_says_goes(bars):
    heard = []
    edited(progress=lambda done, total: heard.append((done, total)))
    assert heard == [(1, 1)]
    assert all(bar.options["disable"] for bar in bars)
    bars.clear()
    edited(progress=False)
    assert all(bar.options["disable"] for bar in bars)
    bars.clear()
    edited(progress=True)
    assert not any(bar.options["disable"] or bar.options.get("delay") for bar in bars if bar.options["total"])


def _all(prompts):
    call = prompts.call
    parts = {"x": prompts.x, "out": prompts.out, "tail": call.tail, **call.noted}
    real = call.real
    return {name: part if part.shape[:2] != real.shape else part[real] for name, part in parts.items()} | {
        "tokens": call.tokens[real],
        "step": call.step[real],
        "real": real.sum(1),
    }


@pytest.mark.parametrize("chunk", [7, 1000])
def test_chunks_make_no_difference(chunk, monkeypatch):
    names, forms = calibrating.hard_negatives()
    monkeypatch.setattr(calibrating, "hard_negatives", lambda: (names[:8], forms))
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, editmem.MemoirSpec(router="names"), tokenizer=tokenizer)
    most = []

    def read(prompts, vision=()):
        most.append(len(prompts))
        return writer.read(prompts, vision)

    writer, found = changes_of(editor).writers[0], []
    for size in (32, chunk):
        monkeypatch.setattr(calibrating, "CHUNK", size)
        most.clear()
        found.append(calibrating.calibration(writer.encode, read, writer.vocabulary, False, False))
        assert max(most) <= size
    for one, other in zip(
        [*found[0].neutral, *found[0].hard_negatives], [*found[1].neutral, *found[1].hard_negatives], strict=True
    ):
        assert one.call.real.shape == other.call.real.shape
        for name, part in _all(one).items():
            torch.testing.assert_close(part, _all(other)[name], rtol=1e-3, atol=1e-4)
