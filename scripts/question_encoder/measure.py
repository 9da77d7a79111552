"""How well an encoder tells what is asked: the tables of the model card.

python scripts/question_encoder/measure.py DATA [--minilm FOLDER] [--teacher FILE]
"""

import argparse
import re
import runpy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from random import Random

import torch
from made import other
from relations import Relation, held_out, written
from texts import SUBJECT, word_hash, words
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from editmem.routing.false_matches import THRESHOLDS
from editmem.routing.likeness import USUAL, likeness
from editmem.routing.question_encoder import PLACE, question_encoder
from editmem.routing.question_kinds import kinds

Encoder = Callable[[Sequence[str]], Tensor]
Score = Callable[[slice, int], Tensor]
"""Of some texts' and an edit's numbers how alike they are."""


@dataclass
class Test:
    """An edit's prompt, texts that ask the same, texts that ask something else, and traps."""

    edit: str
    asks: list[str]
    others: list[str]
    tricky: list[str]


def asks(path: Path) -> list[Test]:
    """The hand-written test set, its subjects written X; the wordings are those of the relation."""

    def fill(texts: Sequence[str]) -> list[str]:
        return [text.replace("{s}", "X") for text in texts]

    relations = runpy.run_path(str(path))["RELATIONS"].values()
    return [Test(fill([r["edit"]])[0], fill(r["asks"]), fill(r["others"]), fill(r["tricky"])) for r in relations]


def held(relations: Sequence[Relation]) -> list[Test]:
    """Tests from relations that were not learned: the other questions are of subjects of the same kind."""
    luck, found = Random(0), []
    for relation in relations:
        edit, *rest = luck.sample(relation.phrasings, len(relation.phrasings))
        different = [r for r in relations if r.name != relation.name and r.name not in relation.alike]
        near = [r for r in different if r.kind == relation.kind] or different
        others = [text for r in near for text in r.phrasings]
        made = [other(text, luck) for text in relation.phrasings[:3]]
        found.append(Test(edit, rest, luck.sample(others, min(6, len(others))), made))
    return found


def whole_score(lines: Sequence[str], rows: Tensor) -> Score:
    """What the router goes by: cosines, corrected by what is usually asked and by the kinds of answers."""
    ids, usual = _ids(lines), question_encoder().usual(rows) - USUAL
    kind = torch.cat([kinds(part)[:, -1] for part in ids.split(512)])
    return lambda own, edit: likeness(rows[own] @ rows[edit], usual[own], usual[edit], kind[own], kind[edit])


def scores(tests: Sequence[Test], encoder: Encoder, whole: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """How alike their edits are the asks, the other questions and the traps: by cosine, or as the router has it."""
    lines = [line for t in tests for line in (t.edit, *t.asks, *t.others, *t.tricky)]
    rows, at = encoder(lines), 0
    score = whole_score(lines, rows) if whole else lambda own, edit: rows[own] @ rows[edit]
    found: tuple[list[Tensor], ...] = ([], [], [])
    for test in tests:
        edit, at = at, at + 1
        for column, texts in zip(found, (test.asks, test.others, test.tricky), strict=True):
            column.append(score(slice(at, at + len(texts)), edit))
            at += len(texts)
    return torch.cat(found[0]), torch.cat(found[1]), torch.cat(found[2])


def table(tests: Sequence[Test], encoder: Encoder, whole: bool = False) -> str:
    """Share of asks (and of traps) above the thresholds where 1, 4, 5 and 10 % of the other questions are."""
    mine, others, tricky = scores(tests, encoder, whole)
    cells = []
    for false in (0.01, 0.04, 0.05, 0.1):
        threshold = others.sort(descending=True).values[int(false * len(others))]
        trap = f"/{(tricky > threshold).float().mean():.2f}" if len(tricky) else ""
        cells.append(f"{false:.0%}: {(mine > threshold).float().mean():.2f}{trap}")
    return re.sub(r"\s+", " ", "  ".join(cells))


def shipped(lines: Sequence[str]) -> Tensor:
    """Float32 `[N, 192]`: the vectors of the encoder that comes with the package."""
    return torch.cat([question_encoder()(part)[:, -1] for part in _ids(lines).split(256)])


def _ids(lines: Sequence[str]) -> Tensor:
    """Int64 `[N, W]`: the ids that the shipped encoder has for texts."""
    said = [[word_hash(word) for word in words(line)] for line in lines]
    ids = pad_sequence([question_encoder().ids(torch.tensor(row, dtype=torch.int64)) for row in said], True)
    place = pad_sequence([torch.tensor(row, dtype=torch.int64) == word_hash(SUBJECT) for row in said], True)
    return torch.where(place, PLACE, ids)


def speed(length: int) -> float:
    """Milliseconds for a prompt of so many words on one core."""
    encoder = question_encoder()
    row = encoder.words[torch.randint(len(encoder.words), (1, length))]
    times = []
    with torch.inference_mode():
        for _ in range(50):
            start = time.perf_counter()
            encoder(encoder.ids(row))
            times.append(time.perf_counter() - start)
    return min(times) * 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--minilm", type=Path, help="folder of MiniLM, to compare with")
    parser.add_argument("--teacher", type=Path, help="weights of the tuned teacher, to compare with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = {
        "asks": asks(options.data / "asks/asks.py"),
        "held out": held([relation for relation in written() if held_out(relation)]),
    }
    encoders: dict[str, Encoder] = {"shipped": shipped}
    if options.minilm:
        from teacher import Teacher

        encoders["MiniLM"] = Teacher(options.minilm)
        if options.teacher:
            tuned = Teacher(options.minilm)
            tuned.model.load_state_dict(torch.load(options.teacher))
            encoders["teacher"] = tuned
    for name, encoder in encoders.items():
        for which, tests in sets.items():
            print(f"{name:8} {which:9} {table(tests, encoder)}")
    for which, tests in sets.items():
        print(f"{'router':8} {which:9} {table(tests, shipped, whole=True)}")
    mine, others, tricky = scores(sets["held out"], shipped, whole=True)
    print(f"held out, {len(others)} other questions, by threshold: found, false, traps")
    for threshold in THRESHOLDS:
        shares = [float((part > threshold).float().mean()) for part in (mine, others, tricky)]
        print(f"{threshold:.2f}", *(f"{share:.4f}" for share in shares))
    size = len((resources.files("editmem.routing") / "data/question_encoder.safetensors").read_bytes())
    print(f"{size / 1e6:.1f} MB, {speed(16):.2f} ms for 16 words, {speed(64):.2f} ms for 64 words")


if __name__ == "__main__":
    main()
