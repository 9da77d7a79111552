"""What the router on questions finds and leaves alone, on a real tokenizer: no host is needed, for it reads no states.

    python -m benchmarks asking --tokenizer FOLDER --asks asks.py --locft FOLDER --edits 1000

Prints shares at the default threshold: of hand-written questions (`asks`: found; other questions about the subject,
other subjects, and tricky ones: left alone) and of the records of LocFT-BF's files (rephrased: found; locality: left
alone).
"""

import importlib.util
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.asker import TOGETHER, Asker, Given
from benchmarks.models import load_host
from benchmarks.studies import parser_of
from editmem.text.vocabulary import Vocabulary
from editmem.tiny import people

LONG = "Many people came to the meeting in the old town hall near the river, for the days were long and warm. " * 2
DATA = ("wikibigedit", "zsre", "counterfact")


def items_of(path: Path) -> list[dict[str, Any]]:
    """The edits that a file of hand-written questions has, with what is asked about them."""
    loader = importlib.util.spec_from_file_location("asks", path)
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    return list(module.items())


def asks(path: Path, tokenizer: Any, vocabulary: Vocabulary, phrasings: int, encoder: str | None) -> None:
    """`phrasings` of each edit's `asks` are given with it, and its subject; the others are asked."""
    items, asker = items_of(path), Asker(tokenizer, vocabulary, encoder)
    given = [
        Given(asker.ids(item["subject"]), (), tuple(map(asker.ids, item["asks"][:phrasings]))) if phrasings else Given()
        for item in items
    ]
    asker.add([item["prompt"] for item in items], given)
    for kind in ("asks", "other_question", "other_subject", "tricky"):
        texts = [item[kind][phrasings:] if kind == "asks" else item[kind] for item in items]
        found = iter(asker.find([text for part in texts for text in part]))
        right = [next(found) == (n if kind == "asks" else -1) for n, part in enumerate(texts) for _ in part]
        print(f"asks, {phrasings} phrasings given  {kind:<15} {sum(right) / len(right):.3f} of {len(right)}")


def locft(path: Path, tokenizer: Any, vocabulary: Vocabulary, count: int, encoder: str | None) -> None:
    records, asker = json.loads(path.read_text(encoding="utf-8"))[:count], Asker(tokenizer, vocabulary, encoder)
    prompts = [record.get("prompt") or record["src"] for record in records]
    asker.add(prompts, [Given()] * len(prompts))
    rephrased = list(asker.find([record.get("rephrase_prompt") or record["rephrase"] for record in records]))
    local = [text.removeprefix("nq question: ") for record in records for text in _locality(record)]
    left = list(asker.find(local))
    print(f"{path.stem}, {len(records)} edits  itself    {_share(a == n for n, a in enumerate(asker.find(prompts)))}")
    print(f"{path.stem}, {len(records)} edits  rephrased {_share(answer == n for n, answer in enumerate(rephrased))}")
    print(f"{path.stem}, {len(records)} edits  locality  {_share(answer < 0 for answer in left)} of {len(left)}")


def speed(count: int, tokenizer: Any, vocabulary: Vocabulary, host: str | None) -> None:
    """What it costs to route a prompt among so many edits on one thread, and the host's own pass over it."""
    surnames = ["".join(parts) for parts in itertools.product(people.ONSETS, people.MIDDLES, people.CODAS)]
    names = [f"{first} {last}" for first in people.FIRST_NAMES for last in surnames]
    asker, names = Asker(tokenizer, vocabulary), random.Random(0).sample(names, count)
    start = time.perf_counter()
    asker.add([f"{name} was born in" for name in names], [Given()] * count)
    print(f"{count} edits, {1000 * (time.perf_counter() - start) / count:.2f} ms to add one in batches of {TOGETHER}")
    texts = {"names no edit": f"{LONG}What was decided there?", "names one": f"{LONG}Where was {names[5]} born?"}
    for kind, text in texts.items():
        call = asker._prompts([text]).call
        took = _milliseconds(lambda call=call: asker.router.decide(torch.zeros(1), call, {}))
        print(f"a prompt of {len(asker.ids(text))} tokens that {kind}: {took:.2f} ms")
    if host is not None:
        model, _ = load_host(host)
        model, inputs = model.float(), tokenizer([texts["names one"]], return_tensors="pt")
        with torch.no_grad():
            print(f"the host's own pass over it: {_milliseconds(lambda: model(**inputs, logits_to_keep=1)):.1f} ms")


def _milliseconds(work: Callable[[], Any], times: int = 20) -> float:
    took = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return 1000 * min(took)


def _share(right: Any) -> str:
    values = list(right)
    return f"{sum(values) / len(values):.3f}"


def _locality(record: dict[str, Any]) -> list[str]:
    found = record.get("locality_prompt") or record.get("loc") or record.get("locality") or []
    return [found] if isinstance(found, str) else [text for text in found if isinstance(text, str)]


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--tokenizer", required=True, help="folder or Hub name")
    parser.add_argument("--asks", type=Path, help="a file with `items()`, edits with what is asked about them")
    parser.add_argument("--locft", type=Path, help="a folder with *_2k.json")
    parser.add_argument("--encoder", help="a sentence encoder in the place of the built-in one; folder or Hub name")
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--speed", type=int, help="so many edits: what it costs to route a prompt among them")
    parser.add_argument("--host", help="a model to compare the cost with; folder or Hub name")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    vocabulary = Vocabulary(tokenizer, len(tokenizer))
    for phrasings in (0, 2) if options.asks else ():
        asks(options.asks, tokenizer, vocabulary, phrasings, options.encoder)
    if options.speed:
        speed(options.speed, tokenizer, vocabulary, options.host)
    for name in DATA if options.locft else ():
        locft(options.locft / f"{name}_2k.json", tokenizer, vocabulary, options.edits, options.encoder)
