"""How a memory bears 100,000 edits: facts of invented people on the embedded model."""

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import editmem
from benchmarks import machine
from benchmarks.metrics import METRICS
from benchmarks.records import Record
from benchmarks.session import Session
from editmem.tiny import world

FIRST = "Al Be Cor Da El Fi Gal Hes Is Jo Kir Lu Mar Ni Os Per Ri Sol Tam Vi".split()
SECOND = "bo da fa gin ka len mi na ro sa tia ve".split()
ONSETS = "Ab Bor Chal Dren Ebb Fal Grun Hax Ik Jem Klo Lam Mul Nax Orl Pim Quo Rux Sku Tro Urb Vox Wim Yst Zog".split()
MIDDLES = "a e i o u au ei ia".split()
CODAS = "bash cott dorn fell garth hurst kin low mere noff pitt quist rath som tran vey wick zek".split()
RELATIONS = ("birthplace", "profession", "instrument", "employer", "language_spoken")
CHUNK = 512  # edits between two updates of the bar
ASKED = 1_000  # edits and known facts that are asked at each size
TIMED = 50  # prompts whose forwards are timed


def invent(count: int, seed: int) -> list[Record]:
    """Facts of invented people, `len(RELATIONS)` for each, in mixed order.

    Names are composed of syllables and unique; answers are drawn from those that the world's people have.

    Args:
        count: how many facts.
        seed: decides names, answers and order; more facts of one seed are not a continuation of fewer.

    Raises:
        ValueError: if there are not so many names.
    """
    surnames = [f"{a}{b}{c}{d}" for a in ONSETS for b in MIDDLES for c in CODAS for d in ("", *MIDDLES)]
    people, rng = -(-count // len(RELATIONS)), random.Random(seed)
    if people > len(surnames):
        raise ValueError(f"{count} facts need {people} people; at most {len(surnames)} can be named")
    answers = {relation: sorted({f.answer for f in world.facts() if f.relation == relation}) for relation in RELATIONS}
    names = [f"{rng.choice(FIRST)}{rng.choice(SECOND)} {surname}" for surname in rng.sample(surnames, people)]
    facts = [world.Fact(name, relation, rng.choice(answers[relation])) for name in names for relation in RELATIONS][
        :count
    ]
    rng.shuffle(facts)
    return [
        Record(f"{fact.subject}: {fact.relation}", fact.prompts()[0], fact.answer, (fact.answer,), subject=fact.subject)
        for fact in facts
    ]


def measure(
    out: Path, sizes: Sequence[int], seed: int, make: Callable[[Any, Any, Mapping[str, Any], int], Session],
    options: Mapping[str, Any], command: str = "",
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Edit up to each size and measure there.

    Args:
        out: a file of JSON lines; written anew, a line as each size is reached.
        sizes: numbers of edits, rising.
        seed: of the facts and of what is asked.
        make: makes a session of a model, a tokenizer, options and a seed.
        options: of the method.
        command: what the user typed; kept in each line.

    Yields:
        The lines: `edits`; `reliability` on up to 1,000 random edits so far; `locality`, the share of 1,000 known
        facts whose greedy answer is unchanged; `seconds per edit` since the size before; `bytes per edit` of the
        saved state; `forward seconds` and `forward seconds without`, medians of one forward at batch 1 with the
        memory and without; `match seconds`, their difference; `peak memory` in bytes.
    """
    session = make(*editmem.tiny(), options, seed)
    session.prepare()
    records, rng = invent(sizes[-1], seed), random.Random(seed)
    known = [rng.choice(fact.prompts()) for fact in rng.sample(world.facts(), min(ASKED, len(world.facts())))]
    before, done = session.generate(known), 0
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("", encoding="utf-8")
    for size in sizes:
        seconds = _edit(session, records[done:size]) / (size - done)
        done = size
        line = {"edits": size, "seconds per edit": seconds, **_look(session, records[:size], rng)}
        after = session.generate(known)
        line["locality"] = statistics.fmean(float(a == b) for a, b in zip(after, before, strict=True))
        line |= {"options": dict(options), "seed": seed, "command": command, **machine.description()}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        yield line


def _edit(session: Session, records: Sequence[Record]) -> float:
    """Seconds that the edits took."""
    start = time.perf_counter()
    with tqdm(total=len(records), unit="edit", desc="editing") as bar:
        for first in range(0, len(records), CHUNK):
            bar.update(len(session.edit(records[first : first + CHUNK])))
    return time.perf_counter() - start


def _look(session: Session, records: Sequence[Record], rng: random.Random) -> dict[str, float]:
    asked = rng.sample(records, min(ASKED, len(records)))
    hits = METRICS["reliability"].after(session, asked, None)
    prompts = [record.prompt for record in asked[:TIMED]]
    on = _forward_seconds(session, prompts)
    with session.off():
        off = _forward_seconds(session, prompts)
    return {
        "reliability": statistics.fmean(score.value for score in hits),
        "forward seconds": on,
        "forward seconds without": off,
        "match seconds": on - off,
        "bytes per edit": _saved_bytes(session) / len(records),
        "peak memory": machine.peak_memory(),
    }


def _forward_seconds(session: Session, prompts: Sequence[str]) -> float:
    """Median seconds of one forward at batch 1."""
    seconds = []
    with torch.no_grad():
        for prompt in prompts:
            inputs = session.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            inputs = inputs.to(session.model.device)
            start = time.perf_counter()
            session.model(**inputs, use_cache=False)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _saved_bytes(session: Session) -> int:
    with tempfile.TemporaryDirectory() as folder:
        session.save(Path(folder))
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
