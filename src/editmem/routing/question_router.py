"""The router on questions: whom a prompt is about, by names; what it asks of them, by a question encoder."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.errors import CheckpointError
from editmem.hosts.forward import Call, Mode
from editmem.memory import Calibration, Kept, Match, Prompts
from editmem.routing.asked import Asked, ask, asked_of_anyone, encoder_on, latest, nouns_behind, sentence_starts
from editmem.routing.false_matches import rate_at, threshold_at
from editmem.routing.likeness import USUAL, likeness, limit
from editmem.routing.question_encoder import OUTPUT, question_encoder
from editmem.routing.router import Router
from editmem.routing.subjects import Subjects
from editmem.routing.text_questions import TextQuestions
from editmem.storage.table import Rows
from editmem.text.chat_turns import Turns
from editmem.text.vocabulary import Vocabulary
from editmem.text.word_stream import Spoken, Stream

RATE = 0.03
"""The share of other questions about an edit's subject that may match, where the user gives none."""
TIE = 1e-3
"""How little two scores differ that count as the same: the row acts whose prompt ends in the same token, else the later
one. An edit is written for a prompt with and without the white space behind it."""
ANYTHING = -1.0
"""The threshold of an item, which is for whatever is asked about its subject."""
SHOWN = 4096
"""Of so many edits, the newest, those are shown whose questions are alike though they are not named."""
PART = 0.5
"""The share of who from which an edit is considered."""


class QuestionRouter(Router):
    """Score: how alike two questions are with their subjects taken out, if the query names the edit's subject.

    Who is a matter of words (`Subjects`), what of a question encoder (`QuestionEncoder`, `likeness`); the host's states
    are not looked at. An edit's own prompt is one question; `Edit.phrasings` are others. A query that is nearer to one
    of `Edit.unlike` than to these does not match.

    Args:
        threshold: the similarity from which an edit acts; None for that of `rate`.
        rate: the share of other questions about an edit's subject that may match; None for `RATE`.
        other: makes the vectors of questions in the place of the built-in encoder, and has a threshold of its own.
    """

    keys = ("chats", "ends", "tails", "starts", "counts", "limits")
    by_words = True

    def __init__(self, threshold: float | None, rate: float | None = None, other: TextQuestions | None = None) -> None:
        super().__init__()
        self.fixed_threshold, self.asking = threshold, other
        self.rate = RATE if rate is None else rate
        self.turns = Turns()
        self.subjects = Subjects(Stream())
        self.chats = Rows((), torch.bool)
        self.ends = Rows((), torch.int64)  # the token that its prompt ends in
        self.starts = Rows((), torch.int64)
        self.counts = Rows((), torch.int64)
        self.questions = Rows((OUTPUT if other is None else other.encoder.width,), torch.float16)
        self.other = Rows((), torch.bool)  # whether the edit is not for that question
        self.kind = Rows((), torch.uint8)  # of the answer that it asks for
        self.usual = Rows((), torch.float32)  # how alike it is to what is usually asked
        self.tails = Rows((), torch.int64)  # the word behind its subject that belongs to it, -1 for none
        self.limits = Rows((), torch.float32)
        self.most = 1  # questions that an edit has

    def __len__(self) -> int:
        return len(self.chats)

    @property
    def threshold(self) -> float:
        """The similarity from which an edit acts of which nothing is known but its prompt."""
        if self.fixed_threshold is not None:
            return self.fixed_threshold
        return threshold_at(self.rate) if self.asking is None else self.asking.threshold

    @property
    def calibrated_by(self) -> Collection[str]:
        return set()

    def calibrate(self, host: Calibration) -> None:
        self.hear(host.vocabulary)

    def read_back(self, text_of: Callable[[Sequence[int]], str]) -> None:
        if self.asking is not None:
            self.asking.text_of = text_of

    def hear(self, vocabulary: Vocabulary) -> None:
        device = self.chats.data.device
        self.turns, self.subjects.stream = vocabulary.turns.to(device), vocabulary.stream.to(device)

    # Writing

    def append(self, prompts: Prompts, edits: Sequence[EncodedEdit]) -> list[Kept]:
        first, count = len(self.chats), len(edits)
        text, since, chat = self._texts(prompts.call)
        texts = [[i for i in text[b, int(since[b]) :].tolist() if i >= 0] for b in range(count)]
        self.subjects.append(texts, *self._names_of(texts, edits), self._choose)
        self.tails.append(nouns_behind(self.subjects, self._rows(texts), first))
        asks = [[texts[number], *edit.phrasings, *edit.unlike] for number, edit in enumerate(edits)]
        for edit, asked in zip(edits, self._vectors(asks, range(first, first + count)), strict=True):
            self._ask_for(*asked, edit)
        self.chats.append(chat[:count])
        self.ends.append(_last(text)[:count])
        self._count()
        alike = self.alike(prompts, range(first, first + count))
        return [Kept(matches, self._rate_of(first + number)) for number, matches in enumerate(alike)]

    def _names_of(
        self, texts: Sequence[Sequence[int]], edits: Sequence[EncodedEdit]
    ) -> tuple[list[Sequence[int] | None], list[Sequence[Sequence[int]]]]:
        """Subjects as they were given, and aliases; a subject that is not found in its edit's own prompt is an alias of
        what that names itself."""
        subjects: list[Sequence[int] | None] = [edit.subject for edit in edits]
        aliases: list[Sequence[Sequence[int]]] = [edit.aliases for edit in edits]
        given = [(number, subject) for number, subject in enumerate(subjects) if subject is not None]
        if given:
            prompts = [texts[number] for number, _ in given]
            alone = Subjects(self.subjects.stream).to(self.chats.data.device)
            alone.append(prompts, [subject for _, subject in given], [()] * len(given))
            tokens = self._rows(prompts)
            found = alone.find(tokens, torch.zeros_like(tokens[:, :1])).row
            own = torch.arange(len(given), device=found.device)[:, None]
            for (number, subject), there in zip(given, (found == own).any(1).tolist(), strict=True):
                if not there:
                    subjects[number], aliases[number] = None, (subject, *aliases[number])
        return subjects, aliases

    def _rate_of(self, row: int) -> float | None:
        """The estimated share of other questions about an edit's subject that match it; None for an item."""
        threshold = float(self.limits.used[row])
        return None if self.asking is not None or threshold == ANYTHING else rate_at(threshold)

    def _ask_for(self, vectors: Tensor, kind: Tensor, edit: EncodedEdit) -> None:
        """Keep the questions of one more edit; it is not for the last ones, the `unlike` of them."""
        unlike = len(edit.unlike)
        other = torch.arange(len(vectors), device=vectors.device) >= len(vectors) - unlike
        vectors = vectors.to(self.questions.data.dtype).float()  # as they are kept: a confirmed edit reads them again
        usual = self._usual(vectors)
        alike = likeness(vectors @ vectors.T, usual[:, None], usual, kind[:, None], kind)
        self.starts.append(torch.tensor([len(self.questions)]))
        self.counts.append(torch.tensor([len(vectors)]))
        self.questions.append(vectors)
        self.other.append(other)
        self.kind.append(kind)
        self.usual.append(usual)
        own = limit(alike, other, self.threshold)[None]
        self.limits.append(torch.full_like(own, ANYTHING) if edit.edit.item else own)

    def _usual(self, vectors: Tensor) -> Tensor:
        """How alike questions `[..., d]` are to what is usually asked, more or less than most are; float32 `[...]`."""
        if self.asking is not None:
            return vectors.new_zeros(vectors.shape[:-1])
        return encoder_on(vectors.device).usual(vectors) - USUAL

    @property
    def rekeys(self) -> bool:
        return True

    def rekey(self, rows: Sequence[int], edits: Sequence[EncodedEdit]) -> None:
        order = torch.arange(len(self.chats), device=self.chats.data.device)
        for row, edit in zip(rows, edits, strict=True):
            at = int(self.starts.used[row])
            vectors, kind = self.questions.used[at : at + 1].float(), self.kind.used[at : at + 1].long()
            if more := [*edit.phrasings, *edit.unlike]:
                ((said, asked),) = self._vectors([more], [row])
                vectors, kind = torch.cat([vectors, said]), torch.cat([kind, asked])
            order[row] = len(self.starts)
            self._ask_for(vectors, kind, edit)
        self._pick(order)

    def _choose(self, number: int, spans: Sequence[tuple[int, int]]) -> int | None:
        return None

    def _rows(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Texts as tokens, -1 in front: int64 `[N, S]`."""
        tokens = torch.full((len(texts), max(map(len, texts))), -1, device=self.chats.data.device)
        for i, text in enumerate(texts):
            tokens[i, tokens.shape[1] - len(text) :] = torch.as_tensor(list(text))
        return tokens

    def _vectors(self, asks: Sequence[Sequence[Sequence[int]]], rows: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """What each edit's texts ask of its subject, float32 `[n, d]`, and its kind, int64 `[n]`."""
        texts = [text for own in asks for text in own]
        device = self.chats.data.device
        edit = torch.tensor([row for row, own in zip(rows, asks, strict=True) for _ in own], device=device)
        tokens = self._rows(texts)
        asked = self.questions_of(tokens, torch.zeros((len(texts), 1), dtype=torch.long, device=device), Mode.BOUNDARY)
        vectors = asked.vectors.new_zeros((len(texts), asked.vectors.shape[-1]))
        kind = torch.zeros(len(texts), dtype=torch.int64, device=device)
        own = asked.row == edit[asked.text]
        text, last = asked.text[own], asked.said[own, -1]
        vectors[text], kind[text] = asked.vectors[own, last], asked.kind[own, last]
        sizes = [len(own) for own in asks]
        return list(zip(vectors.split(sizes), kind.split(sizes), strict=True))

    def bury(self, rows: Sequence[int]) -> bool:
        self.limits.put(rows, torch.inf)
        self.subjects.bury(rows)
        return True

    def keep(self, rows: Tensor) -> None:
        self._pick(rows)
        self.chats.keep(rows)
        self.ends.keep(rows)
        self.tails.keep(rows)
        self.subjects.keep(rows)

    def _pick(self, rows: Tensor) -> None:
        """Of the questions only those of these rows, in this order."""
        starts, counts = self.starts.used[rows], self.counts.used[rows]
        new = counts.cumsum(0) - counts
        places = torch.repeat_interleave(starts - new, counts) + torch.arange(int(counts.sum()), device=rows.device)
        for table in (self.questions, self.other, self.kind, self.usual):
            table.keep(places)
        self.starts.replace(new)
        self.counts.keep(rows)
        self.limits.keep(rows)
        self._count()

    def _count(self) -> None:
        self.most = max(1, int(self.counts.data.max()))

    # Reading

    def _texts(self, call: Call) -> tuple[Tensor, Tensor, Tensor]:
        """Texts `[B, S]`, where their last turns begin `[B]`, and which are turns of chats `[B]`."""
        text, _ = call.text()
        since = self.turns.starts(text)[:, -1]
        return self.turns.without_closing(text), since, since > 0

    def questions_of(self, text: Tensor, since: Tensor, mode: Mode) -> Asked:
        return ask(self.subjects, self.tails.data, self.asking, text, since, mode)

    def _similarity(self, asked: Asked) -> Tensor:
        """Of what is asked to the edits' questions, float32 `[C, V]`; -1 where one that it is not for is nearer."""
        row = asked.row.clamp(min=0)
        number = torch.arange(self.most, device=row.device)
        there = (number < self.counts.data[row][:, None])[:, None]
        index = torch.where(there[:, 0], self.starts.data[row][:, None] + number, 0)
        scores = likeness(
            asked.vectors @ self.questions.data[index].float().transpose(1, 2),
            self._usual(asked.vectors)[..., None], self.usual.data[index][:, None],
            asked.kind[..., None], self.kind.data[index][:, None].long(),
        )  # fmt: skip
        other = self.other.data[index][:, None]
        own = torch.where(there & ~other, scores, -1).amax(-1)
        against = torch.where(there & other, scores, -1).amax(-1)
        return torch.where(against < own, own, -1)

    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        text, first = call.text()
        starts, text = self.turns.starts(text), self.turns.without_closing(text)
        if call.mode is Mode.BOUNDARY:
            scores, rows, _ = self.scores_at_end(text, starts[:, -1:])
            ends = ((call.step == 0) & call.real).any(1)
            return torch.where(ends, self.best(scores, rows, _last(text)), -1)
        asked = self.questions_of(text, torch.zeros_like(starts[:, :1]), Mode.SCAN)
        scores, _ = self._scores(asked, starts, torch.arange(text.shape[1], device=text.device).expand_as(text))
        best = self.best(scores, asked.found.row[:, None].expand_as(scores), text)
        return torch.where(self._whole(asked.spoken, text.shape[1]), best, -1)[:, first:]

    def scores_at_end(self, text: Tensor, since: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """As `_scores` at the ends of texts `[B, S]`, `[B, K]`, with the row of each edit."""
        asked = self.questions_of(text, since, Mode.BOUNDARY)
        scores, (who, what) = self._scores(asked, since, torch.full_like(since, text.shape[1] - 1))
        return scores[:, 0], asked.found.row, (who[:, 0], what[:, 0])

    def _scores(self, asked: Asked, starts: Tensor, until: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """How far over its threshold each named edit is, float32 `[B, Q, K]`, and (who, what).

        Args:
            asked: what texts ask.
            starts: int64 `[B, Q]`, the column where the turn of a chat begins, 0 of plain text.
            until: int64 `[B, Q]`, the last column that has been said.
        """
        found, shape = asked.found, (*until.shape, asked.found.row.shape[1])
        what = asked.vectors.new_full(shape, -2.0)
        if not asked.row.numel():
            return torch.full_like(what, -torch.inf), (torch.zeros_like(what), what)
        at = latest(asked.spoken, until)
        since = torch.maximum(sentence_starts(asked.spoken).gather(1, at), starts)
        b, k = asked.text, asked.place
        named = (found.start[b, k][:, None] >= since[b]) & (found.end[b, k][:, None] <= until[b])
        said = self._similarity(asked).gather(1, asked.said.gather(1, at[b]))
        what[b, :, k] = torch.where(named, said, -2.0)
        what = what.scatter_reduce(2, found.place[:, None].expand(shape), what, "amax")
        who = found.who(since, until)
        row = found.row.clamp(min=0)[:, None]
        kind = self.chats.data[row] == (starts > 0)[..., None]
        over = what - (1 - who) * PART - self.limits.data[row]
        # An item is for all that is asked; an edit that is for the question goes before it.
        over = torch.where((self.limits.data[row] == ANYTHING) & (what > -1), 0.0, over)
        scores = torch.where((found.row >= 0)[:, None] & kind & (who >= PART), over, -torch.inf)
        return scores, (who, what)

    def best(self, scores: Tensor, rows: Tensor, last: Tensor) -> Tensor:
        """The row that acts, int64 `[...]`, -1 for none, of scores and rows `[..., K]`, behind the tokens `last`."""
        alike = self.ends.data[rows.clamp(min=0)] == last[..., None]
        scores = torch.where(scores >= 0, scores + 2 * TIE * alike, -torch.inf)
        near = (scores >= scores.amax(-1, keepdim=True) - TIE) & (scores >= 0)
        return torch.where(near, rows, -1).amax(-1)

    @staticmethod
    def _whole(spoken: Spoken, count: int) -> Tensor:
        """Bool `[B, S]`, columns after which no word goes on."""
        goes_on = spoken.real & ~spoken.begins
        cut = torch.zeros((spoken.real.shape[0], count + 1), dtype=torch.bool, device=spoken.real.device)
        cut = cut.scatter(1, torch.where(goes_on, (spoken.column - 1).clamp(min=0), count), True)[:, :count]
        return ~cut

    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        """The edits that a prompt names; behind them, to show how near they are, newer ones that ask for the like."""
        text, since, _ = self._texts(prompts.call)
        asked = asked_of_anyone(self.subjects, self.asking, text, since[:, None])
        first = max(0, len(self) - SHOWN)
        own = self.starts.used[first:]
        alike = asked @ self.questions.used[own].float().T
        alike -= (self._usual(asked)[:, None] + self.usual.used[own]) / 2
        alike[:, self.limits.used[first:] == torch.inf] = -torch.inf
        ranked = self.near(prompts, top)
        for matches, scores in zip(ranked, alike, strict=True):
            named = {match.row for match in matches}
            best, places = scores.topk(min(top + len(named), len(own)))
            others = [(first + place, score) for score, place in zip(best.tolist(), places.tolist(), strict=True)]
            others = [(row, score) for row, score in others if row not in named and score > -torch.inf]
            matches += [self._match(row, 0.0, score) for row, score in others[: top - len(matches)]]
        return ranked

    def near(self, prompts: Prompts, top: int) -> list[list[Match]]:
        text, since, _ = self._texts(prompts.call)
        scores, rows, (who, what) = self.scores_at_end(text, since[:, None])
        acting = self.best(scores, rows, _last(text))[:, None]
        ranked: list[list[Match]] = []
        for b in range(text.shape[0]):
            first = (rows[b] == acting[b]) & (rows[b] >= 0)
            order = torch.where(first, torch.inf, scores[b]).argsort(descending=True, stable=True)
            named = order[scores[b, order] > -torch.inf][:top].tolist()
            ranked.append([self._match(int(rows[b, k]), float(who[b, k]), float(what[b, k])) for k in named])
        return ranked

    def _match(self, row: int, who: float, what: float) -> Match:
        parts, threshold = {"subject": who, "question": what}, float(self.limits.data[row])
        if threshold == ANYTHING:
            return Match(row, who, PART, parts)
        return Match(row, what - (1 - who) * PART, threshold, parts)

    # Keeping

    @property
    def _signature(self) -> int:
        """Of the encoder that made the vectors; 0 for one of the user's own, which the spec names."""
        return question_encoder().signature if self.asking is None else 0

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}encoder"] = torch.tensor(self._signature)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        if int(state_dict[f"{prefix}encoder"]) != self._signature:
            raise CheckpointError(
                "the memory's questions were written with another question encoder than this version of editmem has; "
                "write its edits again, which edits.jsonl or the ledger hold"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def restored(self) -> None:
        self._count()


def _last(text: Tensor) -> Tensor:
    """The last token of texts `[B, S]` that is known, int64 `[B]`."""
    columns = torch.arange(text.shape[1], device=text.device)
    return text.gather(1, torch.where(text >= 0, columns, 0).amax(1, keepdim=True))[:, 0]
