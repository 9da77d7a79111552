"""Real facts, edited in sequence: does a rephrased question get the new answer, and nothing else change?

    python -m benchmarks counterfact --model FOLDER --counterfact counterfact-edit.json
    python -m benchmarks counterfact --model FOLDER --zsre zsre_mend_edit.json

All figures are of what the model says after the last edit: `model.generate`, greedily. An answer counts if it begins
with the target, as whole words. `--split dev` has records 0 to 1,999, on which everything was chosen; `--split
report` those from 2,000 on. Beside them the papers' figures: ROME's success and magnitude (arXiv 2202.05262, section
3.4: probability of the new answer against the true one) and teacher-forced token accuracy.
"""

import argparse
import json
import random
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import editmem
from benchmarks.studies import parser_of
from benchmarks.studies.main_job import ask, finish, options, share, spec_of

FIRST = {"dev": 0, "report": 2000}
SMALL = {"is", "of", "in", "the", "by", "a", "was", "for", "to", "s", "which", "at", "from", "that", "it", "what"}


def says(answer: str, target: str) -> bool:
    """Whether an answer begins with the target, as whole words."""
    target = target.strip()
    return answer.startswith(target) and not answer[len(target) :][:1].isalnum()


class Templates:
    """The questions of a data set: its prompts with the subject taken out."""

    def __init__(self, records: Sequence[dict]) -> None:
        self.answers: dict[str, set[str]] = {}
        by_subject: dict[str, list[str]] = {}
        for record in records:
            template = self.of(record)
            self.answers.setdefault(template, set()).add(record["ground_truth"])
            by_subject.setdefault(record["subject"], []).append(template)
        self.by_subject = by_subject
        self.beside: dict[str, set[str]] = {}
        for asked in by_subject.values():
            for one in asked:
                self.beside.setdefault(one, set()).update(other for other in asked if self.differ(one, other))

    @staticmethod
    def of(record: dict) -> str:
        return record["prompt"].replace(record["subject"], "{}")

    def differ(self, one: str, other: str) -> bool:
        """Whether two templates ask different things: no word shared, and hardly an answer."""
        a, b = self.answers[one], self.answers[other]
        words = set(re.findall(r"\w+", one.lower())) & set(re.findall(r"\w+", other.lower())) - SMALL
        return not words and len(a & b) <= 0.05 * min(len(a), len(b))


def same_subject(records: Sequence[dict], edited: Sequence[dict]) -> dict[str, list[str]]:
    """Other questions about the edited subjects.

    "real": other records of the data set about the same subject. "made": the templates of such pairs, put to other
    subjects of which the same is edited.
    """
    templates, rng = Templates(records), random.Random(0)
    real, made = [], []
    for record in edited:
        own = Templates.of(record)
        fill = lambda template, subject=record["subject"]: template.replace("{}", subject)  # noqa: E731
        real += [fill(t) for t in sorted(set(templates.by_subject[record["subject"]])) if templates.differ(own, t)]
        if beside := sorted(templates.beside[own] - set(templates.by_subject[record["subject"]])):
            made.append(fill(rng.choice(beside)))
    edits = {record["prompt"] for record in edited}
    return {"real": sorted(set(real) - edits), "made": sorted(set(made) - edits)}


def log_likelihood(model: Any, tokenizer: Any, prompt: str, answer: str) -> tuple[float, float]:
    """Mean log-likelihood of an answer's tokens after a prompt, and the share of them that are the likeliest."""
    start = tokenizer(prompt)["input_ids"]
    end = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
    labels = torch.tensor([[-100] * len(start) + end])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([start + end]), labels=labels).logits[0, len(start) - 1 : -1]
    wanted = torch.tensor(end)
    scores = logits.log_softmax(-1).gather(1, wanted[:, None])
    return scores.mean().item(), (logits.argmax(-1) == wanted).float().mean().item()


def papers(model: Any, tokenizer: Any, records: Sequence[dict], wanted: dict[str, str]) -> dict[str, float]:
    """ROME's efficacy and paraphrase scores, and teacher-forced accuracy, on the edits that are in force."""
    figures: dict[str, float] = {}
    for name, key in (("efficacy", "prompt"), ("paraphrase", "rephrase_prompt")):
        success, magnitude, accuracy = [], [], []
        for record in records:
            new, hits = log_likelihood(model, tokenizer, record[key], wanted[record["prompt"]])
            true, _ = log_likelihood(model, tokenizer, record[key], record["ground_truth"])
            success.append(new > true)
            magnitude.append(float(torch.tensor(new).exp() - torch.tensor(true).exp()))
            accuracy.append(hits)
        figures[f"{name} success"] = share(success)
        figures[f"{name} magnitude"] = round(statistics.mean(magnitude), 4)
        figures[f"{name} token accuracy"] = round(statistics.mean(accuracy), 4)
    return figures


def edit_all(model: Any, tokenizer: Any, spec: Any, pairs: Sequence[tuple[str, str]], batch_size: int) -> tuple:
    """Edit in sequence; of two edits with one prompt the later stands. Returns what is wanted, and seconds an edit."""
    editor = editmem.wrap(model, spec, tokenizer=tokenizer)
    start = time.perf_counter()
    for first in range(0, len(pairs), batch_size):
        editor.edit(list(dict(pairs[first : first + batch_size]).items()), batch_size=batch_size, progress=False)
    return dict(pairs), round((time.perf_counter() - start) / len(pairs), 4)


def unchanged(after: Sequence[str], before: Sequence[str]) -> float:
    return share([a == b for a, b in zip(after, before, strict=True)])


def run_counterfact(model: Any, tokenizer: Any, args: argparse.Namespace, spec: Any) -> dict[str, Any]:
    every = json.loads(args.counterfact.read_text(encoding="utf-8"))
    records = every[FIRST[args.split] :][: args.edits]
    subjects = {record["subject"] for record in records}
    asked = {f"same subject, {kind}": prompts for kind, prompts in same_subject(every, records).items()}
    asked["neighbours"] = [
        record["locality_prompt"] for record in records if not any(s in record["locality_prompt"] for s in subjects)
    ]
    before = {kind: ask(model, tokenizer, prompts, tokens=6) for kind, prompts in asked.items()}
    pairs = [(record["prompt"], record["target_new"]) for record in records]
    wanted, seconds = edit_all(model, tokenizer, spec, pairs, args.batch_size)

    def answered(key: str) -> float:
        said = ask(model, tokenizer, [record[key] for record in records], tokens=10)
        return share([says(answer, wanted[r["prompt"]]) for answer, r in zip(said, records, strict=True)])

    result = {"edits": len(records), "reliability": answered("prompt"), "rephrased": answered("rephrase_prompt")}
    for kind, prompts in asked.items():
        result[f"unchanged: {kind}"] = round(unchanged(ask(model, tokenizer, prompts, tokens=6), before[kind]), 4)
        result[f"asked: {kind}"] = len(prompts)
    if args.papers:
        result |= papers(model, tokenizer, records, wanted)
    return {**result, "seconds per edit": seconds}


def run_zsre(model: Any, tokenizer: Any, args: argparse.Namespace, spec: Any) -> dict[str, Any]:
    records = json.loads(args.zsre.read_text(encoding="utf-8"))
    questions = [record["loc"].removeprefix("nq question: ") + "?" for record in records]
    before = ask(model, tokenizer, questions, tokens=6)
    pairs = [(record["src"], record["alt"]) for record in records]
    wanted, seconds = edit_all(model, tokenizer, spec, pairs, args.batch_size)

    def answered(key: str) -> float:
        longest = max(len(tokenizer(alt)["input_ids"]) for alt in wanted.values())
        said = ask(model, tokenizer, [record[key] for record in records], tokens=longest + 2)
        return share([says(answer, wanted[r["src"]]) for answer, r in zip(said, records, strict=True)])

    return {
        "edits": len(records), "reliability": answered("src"), "rephrased": answered("rephrase"),
        "unchanged: unrelated questions": unchanged(ask(model, tokenizer, questions, tokens=6), before),
        "seconds per edit": seconds,
    }  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", required=True, help="folder of a model that knows CounterFact")
    parser.add_argument("--counterfact", type=Path, help="counterfact-edit.json")
    parser.add_argument("--zsre", type=Path, help="zsre_mend_edit.json")
    parser.add_argument("--papers", action="store_true", help="the papers' figures too")
    options(parser)
    args = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    spec = spec_of(args)
    result: dict[str, Any] = {}
    for name, run in (("counterfact", run_counterfact), ("zsre", run_zsre)):
        if getattr(args, name):
            model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
            tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
            result[name] = run(model, tokenizer, args, spec)
    finish(result, args, spec)
