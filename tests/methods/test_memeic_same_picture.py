"""The same picture and the same question always find their edit, whatever the picture shows."""

import numpy as np
import pytest
from pictured import NAMING, say
from PIL import Image, ImageDraw

import editmem
from editmem import Edit

pytestmark = [pytest.mark.usefixtures("calibrated_once"), pytest.mark.slow]

OWNERS = ("Kenya", "Peru", "France", "Chile", "Japan")


def noise(seed):
    """Nothing but noise: to a tower that knows emblems, one such picture looks like another."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def shapes(seed):
    """Four random shapes on a random ground."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        (x, y), (w, h) = rng.integers(0, 48, 2).tolist(), rng.integers(4, 30, 2).tolist()
        figure = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        figure([x, y, x + w, y + h], fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def edits(pictures):
    owners = [OWNERS[i % len(OWNERS)] for i in range(len(pictures))]
    return [
        Edit(NAMING, owner, image=picture, id=str(i))
        for i, (owner, picture) in enumerate(zip(owners, pictures, strict=True))
    ]


def check(vlm, editor):
    """Every edit is found by its own picture and question, and said, alone and in a batch."""
    given = [record.edit for record in editor.edits.values()]
    rows = [(NAMING, edit.image.pil()) for edit in given]
    wanted = [edit.target for edit in given]
    said = say(vlm, editor.model, rows)
    assert [text.startswith(target) for text, target in zip(said, wanted, strict=True)] == [True] * len(rows)
    found = [editor.explain(NAMING, image=image).edit for _, image in rows[:4]]
    assert [edit and edit.id for edit in found] == [edit.id for edit in given[:4]]


@pytest.mark.parametrize(
    ("draw", "method", "count"), [(noise, "external", 40), (shapes, "external", 40), (noise, "memeic", 12)]
)
def test_random_drawings_in_one_call(vlm, model, draw, method, count):
    with editmem.wrap(model, method, tokenizer=vlm[1]) as editor:
        records = editor.edit(edits([draw(seed) for seed in range(count)]))
        assert [record.took for record in records] == [True] * count
        check(vlm, editor)
        editor.forget(*(str(number) for number in range(0, count, 3)))
        check(vlm, editor)


def test_random_drawings_one_by_one(vlm, model, tmp_path):
    with editmem.wrap(model, "external", tokenizer=vlm[1]) as editor:
        for edit in edits([draw(seed) for seed in range(3) for draw in (noise, shapes)]):
            assert editor.edit(edit).took
        editor.forget("3", "4")
        check(vlm, editor)
        editor.save_pretrained(tmp_path / "memory")
    with editmem.load(model, tmp_path / "memory", tokenizer=vlm[1]) as editor:
        check(vlm, editor)


def test_the_edit_of_the_very_picture_goes_before_those_of_pictures_like_it(vlm, model):
    """A picture that differs in a corner has an edit of its own; each of the two is found by itself."""
    first = noise(0)
    second = first.copy()
    second.paste((0, 0, 0), (0, 0, 24, 24))
    with editmem.wrap(model, "external", tokenizer=vlm[1]) as editor:
        editor.edit(edits([first, second]))
        check(vlm, editor)
