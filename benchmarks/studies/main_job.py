"""The main job, measured as users meet it: edit in sequence, ask after the last edit, compare greedy answers exactly.

    python -m benchmarks main-job --world          # quality, on the embedded model
    python -m benchmarks main-job --time           # wall time of an edit

Defaults were chosen with `--split dev`; the committed results are of `--split report` (other subjects). Real
facts: `counterfact.py`. Every answer is what `model.generate` says, greedily, up to the first full stop.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import editmem
from benchmarks.studies import parser_of
from editmem.tiny.world import Fact, facts, phrasings


def ask(model: Any, tokenizer: Any, prompts: Sequence[str], tokens: int = 12, batch: int = 128) -> list[str]:
    """Greedy answers, without the final full stop."""
    answers: list[str] = []
    for start in range(0, len(prompts), batch):
        inputs = tokenizer(
            list(prompts[start : start + batch]), return_tensors="pt", padding=True, padding_side="left",
            return_token_type_ids=False,
        )  # fmt: skip
        ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        answers += tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip().removesuffix(".") for answer in answers]


def share(hits: Sequence[bool]) -> float:
    return sum(hits) / max(1, len(hits))


def world_edits(split: str, count: int, seed: int) -> list[tuple[Fact, str]]:
    """Facts of one half of the subjects, each with another answer of its relation."""
    rng = random.Random(seed)
    subjects = sorted({fact.subject for fact in facts()})
    half = set(subjects[0::2] if split == "dev" else subjects[1::2])
    answers: dict[str, set[str]] = {}
    for fact in facts():
        answers.setdefault(fact.relation, set()).add(fact.answer)
    chosen = rng.sample([fact for fact in facts() if fact.subject in half], count)
    return [(fact, rng.choice(sorted(answers[fact.relation] - {fact.answer}))) for fact in chosen]


def world_questions(edits: list[tuple[Fact, str]], seed: int) -> dict[str, list[str]]:
    """Prompts that must not change, by kind."""
    rng = random.Random(seed + 1)
    edited = {(fact.subject, fact.relation) for fact, _ in edits}
    rest = [fact for fact in facts() if (fact.subject, fact.relation) not in edited]
    by_subject: dict[str, list[Fact]] = {}
    by_relation: dict[str, list[Fact]] = {}
    for fact in rest:
        by_subject.setdefault(fact.subject, []).append(fact)
        by_relation.setdefault(fact.relation, []).append(fact)
    return {
        "random facts": [rng.choice(fact.prompts()) for fact in rng.sample(rest, min(1000, len(rest)))],
        "same subject, another relation": [
            rng.choice(rng.choice(by_subject[fact.subject]).prompts())
            for fact, _ in edits
            if fact.subject in by_subject
        ],
        "same phrasing, another subject": [
            rng.choice(by_relation[fact.relation]).prompts()[0] for fact, _ in edits if fact.relation in by_relation
        ],
    }


def chat(tokenizer: Any, prompt: str) -> str:
    """The prompt as a user's turn, without the token that the tokenizer puts in front of any text."""
    message = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    return text.removeprefix(tokenizer.bos_token or "")


def run_world(spec: Any, split: str, count: int, seed: int, batch_size: int) -> dict[str, Any]:
    model, tokenizer = editmem.tiny()
    edits = world_edits(split, count, seed)
    questions = world_questions(edits, seed)
    questions["random facts, in a chat"] = [chat(tokenizer, prompt) for prompt in questions["random facts"]]
    questions["same subject, another relation, in a chat"] = [
        chat(tokenizer, prompt) for prompt in questions["same subject, another relation"]
    ]
    before = {kind: ask(model, tokenizer, prompts) for kind, prompts in questions.items()}
    editor = editmem.wrap(model, spec, tokenizer=tokenizer)
    pairs = [(fact.prompts()[0], target) for fact, target in edits]

    def reliability(pairs: list[tuple[str, str]]) -> float:
        said = ask(model, tokenizer, [prompt for prompt, _ in pairs])
        return share([answer == target for answer, (_, target) in zip(said, pairs, strict=True)])

    start = time.perf_counter()
    editor.edit(pairs[:100], batch_size=batch_size, progress=False)
    early = reliability(pairs[:100])
    editor.edit(pairs[100:], batch_size=batch_size, progress=False)
    seconds = (time.perf_counter() - start) / count
    rng = random.Random(seed + 2)
    unseen = [
        (fact.prompts()[form], target)
        for fact, target in edits
        for form in rng.sample(range(1, len(phrasings()[fact.relation])), 2)
    ]
    result = {
        "edits": count,
        "reliability": reliability(pairs),
        "phrasings not edited": reliability(unseen),
        "asked in a chat": reliability([(chat(tokenizer, prompt), target) for prompt, target in pairs]),
        "phrasings not edited, in a chat": reliability(
            [(chat(tokenizer, prompt), target) for prompt, target in unseen]
        ),
        "forgetting of the first 100": early - reliability(pairs[:100]),
    }
    for kind, prompts in questions.items():
        after = ask(model, tokenizer, prompts)
        result[f"locality: {kind}"] = share([a == b for a, b in zip(after, before[kind], strict=True)])
    return {**result, "seconds per edit": round(seconds, 4)}


def time_edits(count: int = 64) -> dict[str, float]:
    """Median wall time of an edit on the embedded model, one by one and in batches of 32, in ms."""
    model, tokenizer = editmem.tiny()
    editor = editmem.wrap(model, "memoir", tokenizer=tokenizer)
    pairs = [(fact.prompts()[0], target) for fact, target in world_edits("report", count + 128, 7)]
    editor.edit(*pairs.pop())
    singles = [_milliseconds(lambda pair=pair: editor.edit(*pair)) for pair in pairs[:count]]
    rest = pairs[count : count + 96]
    batches = [
        _milliseconds(lambda i=i: editor.edit(rest[i : i + 32], progress=False)) / 32 for i in range(0, len(rest), 32)
    ]
    return {"one by one": statistics.median(singles), "in batches of 32": statistics.median(batches)}


def _milliseconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--world", action="store_true", help="the embedded model and its facts")
    parser.add_argument("--time", action="store_true", help="time of an edit on the embedded model")
    options(parser)
    args = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    spec = spec_of(args)
    result: dict[str, Any] = {}
    if args.world:
        result["world"] = run_world(spec, args.split, args.edits, args.seed, args.batch_size)
    if args.time:
        result["milliseconds per edit"] = time_edits()
    finish(result, args, spec)


def options(parser: argparse.ArgumentParser) -> None:
    """The options that all quality benchmarks have."""
    parser.add_argument("--split", choices=["dev", "report"], default="report")
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spec", default="{}", help='JSON, such as \'{"method": "grace"}\'')
    parser.add_argument("--paper", action="store_true", help="the paper's settings")
    parser.add_argument("--out", type=Path, help="append the result to this JSON-lines file")


def spec_of(args: argparse.Namespace) -> Any:
    changes = json.loads(args.spec)
    kind = editmem.METHODS[changes.pop("method", "memoir")]
    return kind.paper(**changes) if args.paper else kind(**changes)  # type: ignore[attr-defined]


def finish(result: dict[str, Any], args: argparse.Namespace, spec: Any) -> None:
    """Print a result with its settings, and keep it if asked to."""
    result["settings"] = {
        "split": args.split, "seed": args.seed, "batch_size": args.batch_size, "spec": spec.to_dict(),
        "torch": torch.__version__, "transformers": transformers.__version__, "threads": torch.get_num_threads(),
        "machine": platform.machine(), "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if args.out:
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
