"""What the embedded vision-language model knows and reads, without any memory.

    python -m benchmarks seeing [--model tiny-vision] [--count 500] [--out FILE]

Of emblems in views that it was not taught: their names, and facts about their owners; facts in words; and what it makes
of a text that says something else than it knows, as evidence does (`scripts.tiny.build_vision.reading`). Greedy
answers, right where they begin with the answer.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import parser_of
from benchmarks.visual.inputs import Reader, grouped
from benchmarks.visual.models import load_host
from benchmarks.visual.pictures import EmblemPicture
from benchmarks.visual.records import Question
from editmem.tiny.emblems import View, emblems
from editmem.tiny.world import facts
from scripts.tiny.build_vision import READINGS, SORTS, question, reading

SEED = 777
KINDS = {"name": "names of emblems", "fact": "facts of emblems' owners", "text": "facts in words"}


def questions(count: int, seed: int) -> dict[str, list[tuple[Question, str]]]:
    """Of each kind so many questions, with their answers."""
    rng, owners = random.Random(seed), list(emblems())
    asked = rng.sample(facts(), count)
    kinds: dict[str, list[tuple[Question, str]]] = {}
    for sort in SORTS:
        subjects = [rng.choice(owners) for _ in asked]
        kinds[KINDS[sort]] = []
        for fact, owner in zip(asked, subjects, strict=True):
            prompt, answer = question(fact, sort, rng)
            answer, shown = (owner, owner) if sort == "name" else (answer, fact.subject)
            kinds[KINDS[sort]].append((Question(prompt, None if sort == "text" else _view(shown, rng)), answer))
    for sort in READINGS[0]:
        said = [reading(fact, sort, rng) for fact in asked]
        kinds[f"evidence: {sort}"] = [
            (Question(prompt, _view(rng.choice(owners), rng) if pictured else None), answer)
            for prompt, answer, pictured in said
        ]
    return kinds


def _view(owner: str, rng: random.Random) -> EmblemPicture:
    return EmblemPicture(owner, View.draw(rng))


def right(model: Any, processor: Any, asked: Sequence[tuple[Question, str]]) -> float:
    """The share of questions that are answered rightly."""
    reader, hits = Reader(processor, model.device), 0
    for places in grouped([item for item, _ in asked], 32):
        inputs = reader.batch([asked[i][0] for i in places]).inputs
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        said = reader.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        hits += sum(text.strip().startswith(asked[i][1]) for i, text in zip(places, said, strict=True))
    return hits / len(asked)


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", default="tiny-vision")
    parser.add_argument("--count", type=int, default=500, help="questions of each kind")
    parser.add_argument("--out", type=Path, help="JSON of the shares")
    args = parser.parse_args(arguments)
    model, processor = load_host(args.model)
    shares = {kind: right(model, processor, asked) for kind, asked in questions(args.count, SEED).items()}
    print(text := json.dumps({"count": args.count, "seed": SEED, "right": shares}, indent=2))
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
