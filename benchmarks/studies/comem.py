"""CoMEM on the embedded vision-language model: what its items answer, and what is left alone.

    python -m benchmarks comem [--items 500] [--encoder FOLDER] [--out FILE]

Items are about people and countries that the encoder was never trained on, with facts that the model does not know
(`editmem.tiny.knowledge`, the part for tests). Half of them have a picture, and are asked about by another view of it;
the others by name. Greedy answers, right where they begin with the answer. Side by side: the right item in front; none;
another's; blank embeddings and the mean of all as controls; the item as text in the prompt. Then all items in one bank,
with retrieval; then every fifth updated, and every fifth forgotten.
"""

import dataclasses
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import editmem
from benchmarks.studies import parser_of
from benchmarks.visual.inputs import Reader, grouped
from benchmarks.visual.pictures import Picture, Pixels
from benchmarks.visual.records import Question
from editmem import Edit, Item
from editmem.editor import Editor, changes_of
from editmem.methods.comem.training import parts_of
from editmem.tiny.emblems import View, emblems, picture, unused
from editmem.tiny.knowledge import EMBLEMS, Known, items
from editmem.tiny.world import COUNTRY_RELATIONS, facts

OWNER = "the owner of this emblem"
TOKENS = 12
IMAGE_TOKENS = 17
PEOPLE = [fact for fact in facts() if fact.relation not in COUNTRY_RELATIONS]


class Asked:
    """An item, a question about it, and the answer."""

    def __init__(self, known: Known, pictured: bool, rng: random.Random) -> None:
        self.known, self.pictured = known, pictured
        self.relation, self.answer = rng.choice(known.facts)
        self.view, self.shown = (picture(known.emblem, View.draw(rng)) for _ in range(2))
        self.prompt = rng.choice(known.questions(self.relation, OWNER if pictured else None))

    @property
    def text(self) -> str:
        return self.known.picture_text if self.pictured else self.known.text

    def item(self, text: str | None = None) -> Edit:
        image = self.view if self.pictured else None
        return Item(text or self.text, image=image, subject=self.known.subject, id=self.known.subject)

    def question(self, prompt: str | None = None) -> Question:
        return Question(prompt or self.prompt, Shown(self.shown) if self.pictured else None)


@dataclass(frozen=True, eq=False)
class Shown(Picture):
    """A picture that was drawn."""

    drawn: Pixels

    def pixels(self) -> Pixels:
        return self.drawn


def asked(count: int, seed: int) -> list[Asked]:
    """Questions about so many items of different subjects and, where they have a picture, emblems."""
    rng, found, pictures = random.Random(seed), dict[str, Asked](), list(unused(EMBLEMS))
    rng.shuffle(pictures)
    for known in items(seed, test=True):
        if len(found) == count:
            return list(found.values())
        if known.subject not in found:
            own = Known(known.subject, known.facts, known.told, pictures[len(found) % EMBLEMS])
            found[known.subject] = Asked(own, len(found) % 2 == 0, rng)
    return []


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def share(said: Sequence[str], wanted: Sequence[str]) -> float:
    """Of what begins with what is wanted."""
    return sum(text.startswith(answer) for text, answer in zip(said, wanted, strict=True)) / max(1, len(wanted))


class Study:
    """The questions about items that an editor holds, and what is answered.

    Args:
        editor: with a "comem" memory alone.
        processor: of its model.
        records: the items, all of them held.
    """

    def __init__(self, editor: Editor, processor: Any, records: Sequence[Asked]) -> None:
        self.editor, self.processor, self.records = editor, processor, records
        self.questions = [record.question() for record in records]
        self.wanted = [record.answer for record in records]
        _, self.memory, _ = parts_of(editor)

    def say(self, questions: Sequence[Question], rows: Sequence[int] | None = None) -> list[str]:
        """What is said to questions, with the items in these rows of the memory in front, if given."""
        reader, said = Reader(self.processor, self.editor.model.device), [""] * len(questions)
        for places in grouped(questions, 32):
            inputs = reader.batch([questions[i] for i in places]).inputs
            with _nothing() if rows is None else self._forced([rows[i] for i in places]):
                ids = self.editor.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
            texts = reader.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for i, text in zip(places, texts, strict=True):
                said[i] = text.strip()
        return said

    @contextmanager
    def _forced(self, rows: Sequence[int]) -> Iterator[None]:
        given = torch.tensor(rows)
        found = {"visual": given, "textual": torch.full_like(given, -1), "items": given[:, None], "acting": given}
        original = self.memory.found
        self.memory.found = lambda prompts: found  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.memory.found = original  # type: ignore[method-assign]

    def bare(self, questions: Sequence[Question]) -> list[str]:
        with self.editor.off():
            return self.say(questions)

    def by_kind(self, name: str, said: Sequence[str]) -> dict[str, float]:
        """The share of right answers, of all, and of each kind of item and question."""
        kinds = {"by name": [not r.pictured for r in self.records], "by picture": [r.pictured for r in self.records]}
        country = [record.relation in COUNTRY_RELATIONS for record in self.records]
        kinds |= {"about countries": country}
        for count in (1, 2, 3):
            told = [len(record.known.facts) == count for record in self.records]
            kinds[f"people, {count} facts"] = [n and not c for n, c in zip(told, country, strict=True)]
        figures = {name: share(said, self.wanted)}
        for kind, own in kinds.items():
            rows = [i for i, is_own in enumerate(own) if is_own]
            figures[f"{name}, {kind}"] = share([said[i] for i in rows], [self.wanted[i] for i in rows])
        return figures

    @property
    def rows(self) -> list[int]:
        """The (first) row of each record's item."""
        held = changes_of(self.editor).writers[0].active.rows
        return [held.index(record.known.subject) for record in self.records]

    def controls(self) -> dict[str, Any]:
        figures = self.by_kind("right item", self.say(self.questions, self.rows))
        figures["no item"] = share(self.bare(self.questions), self.wanted)
        figures |= self._another()
        bank = self.memory.bank.vectors
        kept = bank.data
        for name, blank in {"blank embeddings": torch.zeros_like(kept), "mean embeddings": self._mean()}.items():
            bank.data = blank
            figures[name] = share(self.say(self.questions, self.rows), self.wanted)
        bank.data = kept
        figures["item as text in the prompt"] = share(self.bare(self.told()), self.wanted)
        tokenizer = self.processor.tokenizer
        tokens = [len(tokenizer(r.text)["input_ids"]) + IMAGE_TOKENS * r.pictured for r in self.records]
        figures |= {"tokens of an item": sum(tokens) / len(tokens), "embeddings of an item": self.memory.bank.queries}
        return figures | {"bytes of an item": kept[0].numel() * kept.element_size()}

    def _mean(self) -> torch.Tensor:
        bank = self.memory.bank.vectors
        return bank.used.float().mean(0).to(bank.data.dtype).expand_as(bank.data).contiguous()

    def told(self) -> list[Question]:
        """The questions with the items as text in front."""
        return [record.question(f"{record.text} {record.prompt}") for record in self.records]

    def _another(self) -> dict[str, Any]:
        """With the item of another that has another answer to the same question."""
        pairs = [(i, j) for i in range(len(self.records)) if (j := self._partner(i)) is not None]
        said = self.say([self.questions[i] for i, _ in pairs], [self.rows[j] for _, j in pairs])
        answers = [dict(self.records[j].known.facts)[self.records[i].relation] for i, j in pairs]
        return {
            "another's item: own answer": share(said, [self.wanted[i] for i, _ in pairs]),
            "another's item: that one's answer": share(said, answers),
            "another's items": len(pairs),
        }

    def _partner(self, number: int) -> int | None:
        own, count = self.records[number], len(self.records)
        for other in ((number + step) % count for step in range(1, count)):
            answer = dict(self.records[other].known.facts).get(own.relation)
            if answer not in (None, own.answer) and self.records[other].pictured == own.pictured:
                return other
        return None

    def retrieved(self) -> dict[str, Any]:
        start = time.perf_counter()
        said = self.say(self.questions)
        seconds = time.perf_counter() - start
        names = {record.known.subject for record in self.records}
        unrelated = [question for question in others(3) if not any(name in question.prompt for name in names)]
        ours, bare = self.say(unrelated), self.bare(unrelated)
        start = time.perf_counter()
        self.bare(self.told())
        as_text, count = time.perf_counter() - start, len(self.records)
        return self.by_kind("bank", said) | {
            "other questions": len(unrelated),
            "other questions unchanged": sum(a == b for a, b in zip(ours, bare, strict=True)) / len(unrelated),
            "s an answer": seconds / count,
            "s an answer, item as text, not retrieved": as_text / count,
        }

    def taken_back(self) -> dict[str, Any]:
        updated, forgotten = self.records[::5], self.records[1::5]
        news = [self._update(record) for record in updated]
        self.editor.forget(*(record.known.subject for record in forgotten))
        gone = [record.question() for record in forgotten]
        ours, bare = self.say(gone), self.bare(gone)
        return {
            "after an update": share(self.say([record.question() for record in updated]), news),
            "after forgetting: the host's own": sum(a == b for a, b in zip(ours, bare, strict=True)) / len(gone),
        }

    def _update(self, record: Asked) -> str:
        """Give an item another answer, which is returned."""
        told = (fact for other in self.records for fact in other.known.facts)
        new = next(answer for relation, answer in told if relation == record.relation and answer != record.answer)
        facts = tuple((r, new if r == record.relation else answer) for r, answer in record.known.facts)
        known = dataclasses.replace(record.known, facts=facts)
        self.editor.edit(record.item(known.picture_text if record.pictured else known.text))
        return new


def others(seed: int, count: int = 200) -> list[Question]:
    """Questions about strangers, facts that the model knows, and its own emblems."""
    rng = random.Random(seed)
    strangers = islice(items(seed + 1, test=True, countries=0.0), count)
    asked = [Asked(known, False, rng).question() for known in strangers]
    asked += [Question(rng.choice(fact.prompts()), None) for fact in rng.sample(PEOPLE, count)]
    shown = [picture(emblem, View.draw(rng)) for emblem in rng.sample(list(emblems().values()), count)]
    return asked + [Question(f"What is the capital of {OWNER}?", Shown(view)) for view in shown]


def measure(records: Sequence[Asked], encoder: str | None) -> dict[str, Any]:
    """All figures."""
    model, processor = editmem.tiny(vision=True)
    spec = editmem.ComemSpec() if encoder is None else editmem.ComemSpec.of(encoder)
    with editmem.wrap(model, spec, tokenizer=processor) as editor:
        start = time.perf_counter()
        editor.edit([records[0].item()])
        first = time.perf_counter() - start
        editor.edit([record.item() for record in records[1:]])
        further = (time.perf_counter() - start - first) / max(1, len(records) - 1)
        study = Study(editor, processor, records)
        figures = {"first item, s": first, "further items, s": further}
        return figures | study.controls() | study.retrieved() | study.taken_back()


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--encoder", help="folder of another encoder than the built-in one")
    parser.add_argument("--out", type=Path, help="JSON of the figures")
    args = parser.parse_args(arguments)
    figures = measure(asked(args.items, args.seed), args.encoder)
    print(text := json.dumps({"items": args.items, "seed": args.seed, **figures}, indent=2))
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
