"""Train CoMEM's encoder for a real language model on facts about invented people, and see what its items answer.

    python -m benchmarks comem-real --host FOLDER [--steps 400] [--batch-size 8] [--checkpoint STATE] [--out FILE]

Items are of one to three facts in prose (`editmem.tiny.knowledge`); those of the test are about people that were not
trained on. Greedy answers, right where they begin with the answer: with the right item in front, with none, with that
of another who has another answer to the same question, with blank embeddings, and with the item as text in the prompt.
"""

import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import editmem
from benchmarks.studies import parser_of
from benchmarks.studies.comem import Asked, share
from editmem import Edit, Item
from editmem.editor import Editor
from editmem.hosts.loading import load_host
from editmem.methods.comem.training import Example, Progress, parts_of, save, train
from editmem.tiny.knowledge import items

TOKENS = 8


def examples(seed: int) -> Iterator[Example]:
    """Endless questions about people with the items that answer them."""
    rng = random.Random(seed)
    for known in items(seed, test=False, countries=0.0):
        relation, answer = rng.choice(known.facts)
        yield Example(Item(known.text), Edit(rng.choice(known.questions(relation)), answer))


class Study:
    """What is answered about records, with any embeddings in front."""

    def __init__(self, editor: Editor, tokenizer: Any, records: Sequence[Asked]) -> None:
        self.editor, self.tokenizer, self.records = editor, tokenizer, records
        _, self.memory, self.stage = parts_of(editor)
        self.memory.encoder.trained.fill_(True)
        self.encoded = [self.stage.encode(record.item()) for record in records]

    def say(self, number: int, embeddings: torch.Tensor | None, told: str = "") -> str:
        model = self.editor.model
        ids = self.tokenizer(f"{told}{self.records[number].prompt}", return_tensors="pt")["input_ids"]
        words = model.get_input_embeddings()(ids)
        if embeddings is not None:
            words = torch.cat([embeddings.to(words.dtype), words], 1)
        mask = torch.ones(words.shape[:2], dtype=torch.long)
        with self.editor.off():
            said = model.generate(inputs_embeds=words, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False)
        return str(self.tokenizer.decode(said[0], skip_special_tokens=True)).strip()

    def figures(self) -> dict[str, float]:
        count = range(len(self.records))
        wanted = [record.answer for record in self.records]
        pairs = [(i, j) for i in count if (j := self._partner(i)) is not None]
        other = [self.say(i, self.encoded[j]) for i, j in pairs]
        theirs = [dict(self.records[j].known.facts)[self.records[i].relation] for i, j in pairs]
        return {
            "right item": share([self.say(i, self.encoded[i]) for i in count], wanted),
            "no item": share([self.say(i, None) for i in count], wanted),
            "another's item: own answer": share(other, [wanted[i] for i, _ in pairs]),
            "another's item: that one's answer": share(other, theirs),
            "blank embeddings": share([self.say(i, torch.zeros_like(self.encoded[i])) for i in count], wanted),
            "item as text in the prompt": share([self.say(i, None, f"{self.records[i].text} ") for i in count], wanted),
        }

    def _partner(self, number: int) -> int | None:
        own = self.records[number]
        for other, record in enumerate(self.records):
            if dict(record.known.facts).get(own.relation, own.answer) != own.answer:
                return other
        return None


def records(count: int, seed: int) -> list[Asked]:
    rng = random.Random(seed)
    return [Asked(known, False, rng) for known in itertools.islice(items(seed, test=True, countries=0.0), count)]


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--host", required=True, help="folder or Hub id")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--count", type=int, default=100, help="questions of the test")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--encoder", type=Path, help="folder for the encoder")
    parser.add_argument("--out", type=Path, help="JSON of the figures")
    args = parser.parse_args(arguments)
    model, tokenizer = load_host(args.host)
    start, losses = time.perf_counter(), list[float]()

    def report(progress: Progress) -> None:
        losses.append(progress.loss)
        if progress.step % 10 == 0:
            print(f"{progress.step:5d}  {sum(losses[-10:]) / 10:.3f} nats  {progress.seconds:.0f} s", flush=True)

    with editmem.wrap(model.float(), "comem", tokenizer=tokenizer) as editor:
        drawn = list(itertools.islice(examples(1), args.steps * args.batch_size))
        train(
            editor, drawn, steps=args.steps, batch_size=args.batch_size, rate=args.rate, checkpoint=args.checkpoint,
            every=50, progress=report,
        )  # fmt: skip
        minutes = (time.perf_counter() - start) / 60
        if args.encoder:
            save(editor, args.encoder)
        figures = Study(editor, tokenizer, records(args.count, 7)).figures()
    curve = [sum(losses[at : at + 25]) / len(losses[at : at + 25]) for at in range(0, len(losses), 25)]
    settings = {name: getattr(args, name) for name in ("steps", "batch_size", "rate", "count")}
    results = {"minutes of training": minutes, **settings, **figures, "nats, each 25 steps": curve}
    print(text := json.dumps(results, indent=2))
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
