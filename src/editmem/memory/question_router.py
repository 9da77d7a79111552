"""The router on questions: whom a prompt is about, by names; what it asks of them, by a question encoder."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editmem.call import Call, Mode
from editmem.edit import EncodedEdit
from editmem.errors import CheckpointError
from editmem.memory.asking import TextQuestions
from editmem.memory.base import Calibration, Kept, Match, Prompts
from editmem.memory.false_matches import rate_at, threshold_at
from editmem.memory.kinds import WHETHER, auxiliaries, differ, kinds
from editmem.memory.router import Router
from editmem.memory.rows import Rows
from editmem.memory.subjects import Found, Subjects
from editmem.questions import OUTPUT, PLACE, QuestionEncoder, question_encoder
from editmem.spelling import Is
from editmem.stream import Spoken, Stream
from editmem.turns import Turns
from editmem.vocabulary import Vocabulary

STRICTER = 0.2
"""How far an edit's threshold may be above the usual one, by what it is not for."""
BEYOND = 0.02
"""How much more alike than a question that an edit is not for others have to be."""
SHORT = 4
"""Words that a sentence has at least to stand for itself."""
RATE = 0.03
"""The share of other questions about an edit's subject that may match, where the user gives none."""
KIND = 0.1
"""How much less alike questions are that ask for answers of two kinds, as "founded by" and "founded in the year" do."""
USUAL = 0.65
"""How alike a question is, on the whole, to the nearest ones that are usually asked."""
TIE = 1e-3
"""How little two scores differ that count as the same: the row acts whose prompt ends in the same token, else the later
one. An edit is written for a prompt with and without the white space behind it."""
PART = 0.5
"""The share of who from which an edit is considered."""


_ENCODERS: dict[torch.device, QuestionEncoder] = {}


def encoder_on(device: torch.device) -> QuestionEncoder:
    """The encoder that comes with the package, on a device."""
    if device not in _ENCODERS:  # no `functools.cache`: torch.compile would look through it
        own = question_encoder()
        _ENCODERS[device] = own if device.type == "cpu" else copy.deepcopy(own).to(device)
    return _ENCODERS[device]


@dataclass
class Asked:
    """What texts ask of the subjects of some edits.

    Attributes:
        found: the names in the texts.
        text: int64 `[C]`, which text; place: int64 `[C]`, which of its names.
        row: int64 `[C]`, the edit.
        vectors: float32 `[C, P, 192]`, what the sentence with the name asks, up to each piece.
        kind: int64 `[C, P]`, what kind of answer it asks for, up to each piece.
        spoken: the pieces.
    """

    found: Found
    text: Tensor
    place: Tensor
    row: Tensor
    vectors: Tensor
    kind: Tensor
    spoken: Spoken


class QuestionRouter(Router):
    """Score: how alike two questions are with their subjects taken out, if the query names the edit's subject.

    How alike is a cosine, less half of what each question has with those that are usually asked (cross-domain
    similarity local scaling, arXiv 1710.04087, equation 3): some are near to everything. Those of another kind of
    answer are less alike, and what is answered by yes or no is like nothing else.

    Who is a matter of words (`Subjects`), what of a question encoder (`QuestionEncoder`); the host's states are not
    looked at. An edit's own prompt is one question; `Edit.phrasings` are others. A query that is nearer to one of
    `Edit.unlike` than to these does not match.

    Args:
        threshold: the similarity from which an edit acts; None for that of `rate`.
        rate: the share of other questions about an edit's subject that may match; None for `RATE`.
        other: makes the vectors of questions in the place of the built-in encoder, and has a threshold of its own.
    """

    keys = ("chats", "ends", "tails", "starts", "counts", "limits")

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
    def reads_examples(self) -> bool:
        return False

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
        texts = [text[b, int(since[b]) :].tolist() for b in range(count)]
        self.subjects.append(texts, [e.subject for e in edits], [e.aliases for e in edits], self._choose)
        self.tails.append(self._tails(texts, first))
        asks = [[texts[number], *edit.phrasings, *edit.unlike] for number, edit in enumerate(edits)]
        for edit, asked in zip(edits, self._vectors(asks, range(first, first + count)), strict=True):
            self._ask_for(*asked, len(edit.unlike))
        self.chats.append(chat[:count])
        self.ends.append(_last(text)[:count])
        self._count()
        alike = self.alike(prompts, range(first, first + count))
        return [Kept(matches, self._rate_of(first + number)) for number, matches in enumerate(alike)]

    def _rate_of(self, row: int) -> float | None:
        """The estimated share of other questions about an edit's subject that match it."""
        return rate_at(float(self.limits.used[row])) if self.asking is None else None

    def _ask_for(self, vectors: Tensor, kind: Tensor, unlike: int) -> None:
        """Keep the questions of one more edit; it is not for the last `unlike` of them."""
        other = torch.arange(len(vectors), device=vectors.device) >= len(vectors) - unlike
        vectors = vectors.to(self.questions.data.dtype).float()  # as they are kept: a confirmed edit reads them again
        usual = self._usual(vectors)
        alike = _corrected(vectors @ vectors.T, usual[:, None], usual, kind[:, None], kind)
        self.starts.append(torch.tensor([len(self.questions)]))
        self.counts.append(torch.tensor([len(vectors)]))
        self.questions.append(vectors)
        self.other.append(other)
        self.kind.append(kind)
        self.usual.append(usual)
        self.limits.append(limit(alike, other, self.threshold)[None])

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
            self._ask_for(vectors, kind, len(edit.unlike))
        self._pick(order)

    def _choose(self, number: int, spans: Sequence[tuple[int, int]]) -> int | None:
        return None

    def _tails(self, texts: Sequence[Sequence[int]], first: int) -> Tensor:
        """Of the prompts of new edits the hash of the word behind the name that is part of the subject, int64 `[N]`, -1
        where there is none: "pie" in "The price of Lumaro pie is", which all that is asked of it has in common."""
        tokens = self._rows(texts)
        spoken = self.subjects.stream.read(tokens)
        found = self.subjects.find(tokens, torch.zeros_like(tokens[:, :1]), Mode.BOUNDARY, spoken)
        own = found.row == torch.arange(first, first + len(texts), device=tokens.device)[:, None]
        column = spoken.column[:, None]
        span = own[..., None] & (column >= found.start[..., None]) & (column <= found.end[..., None])
        behind = _behind(spoken.word, span.any(1) & spoken.real)
        verb = torch.isin(self._ids(spoken), auxiliaries(tokens.device))
        further = _behind(spoken.word, behind) & verb
        noun = behind & ~spoken.among("function") & ~verb & further.any(1, keepdim=True)
        return torch.where(noun, spoken.hashes[0], -1).gather(1, _last_of(noun))[:, 0]

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
        asked = self._ask(tokens, torch.zeros((len(texts), 1), dtype=torch.long, device=device), Mode.BOUNDARY)
        vectors = asked.vectors.new_zeros((len(texts), asked.vectors.shape[-1]))
        kind = torch.zeros(len(texts), dtype=torch.int64, device=device)
        own = asked.row == edit[asked.text]
        vectors[asked.text[own]], kind[asked.text[own]] = asked.vectors[own, -1], asked.kind[own, -1]
        sizes = [len(own) for own in asks]
        return list(zip(vectors.split(sizes), kind.split(sizes), strict=True))

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
        return text, since, since > 0

    def _ask(self, text: Tensor, since: Tensor, mode: Mode) -> Asked:
        spoken = self.subjects.stream.read(text)
        found = self.subjects.find(text, since, mode, spoken)
        first = found.place == torch.arange(found.place.shape[1], device=text.device)
        candidate = (found.row >= 0) & first
        if text.device.type == "cpu":
            b, k = candidate.nonzero(as_tuple=True)
        else:  # all of them, so that nothing has to be waited for
            b, k = (index.flatten() for index in torch.meshgrid(*map(torch.arange, candidate.shape), indexing="ij"))
            b, k = b.to(text.device), k.to(text.device)
        if not len(b):
            nothing = torch.zeros((0, spoken.real.shape[1], self.questions.data.shape[1]), dtype=torch.float32)
            return Asked(found, b, k, b, nothing, torch.zeros(nothing.shape[:2], dtype=torch.int64), spoken)
        span = (found.place[b] == k[:, None]) & (found.row[b] >= 0)
        start = torch.where(span, found.start[b], 1 << 40)
        end = torch.where(span, found.end[b], -1)
        column = spoken.column[b][:, None]
        inside = ((column >= start[..., None]) & (column <= end[..., None])).any(1) & spoken.real[b]
        ids = self._ids(spoken)[b]
        last = inside & ~torch.nn.functional.pad(inside[:, 1:], (0, 1))
        ids = torch.where(inside, torch.where(last, PLACE, 0), ids)
        behind = _behind(spoken.word[b], inside) & (spoken.hashes[0][b] == self.tails.data[found.row[b, k]][:, None])
        inside = inside | behind
        ids = torch.where(behind, 0, ids)
        sentence, begun = (part[b] for part in sentences(spoken))
        own = torch.where(inside, sentence, -1).amax(1, keepdim=True)
        heard = (sentence == own) | ((sentence == own + 1) & begun)
        heard &= column[:, 0] >= since[b]
        ids = torch.where(heard, ids, 0)
        if self.asking is None:
            vectors = encoder_on(ids.device)(ids)
        else:
            ends = spoken.real[b] if mode is Mode.SCAN else torch.ones_like(heard).cumsum(1) == heard.shape[1]
            vectors = self.asking(text[b], column[:, 0], heard, inside, ends)
        return Asked(found, b, k, found.row[b, k], vectors, kinds(ids), spoken)

    def _ids(self, spoken: Spoken) -> Tensor:
        """The vocabulary ids of words at their last pieces, int64 `[B, P]`, 0 elsewhere."""
        kind = spoken.kind & 7
        word = spoken.real & ((kind == Is.LETTERS) | (kind == Is.CHARACTER))
        latest = torch.where(spoken.real, torch.arange(word.shape[1], device=word.device), word.shape[1])
        following = torch.nn.functional.pad(latest.flip(1).cummin(1).values.flip(1)[:, 1:], (0, 1), value=word.shape[1])
        begins = torch.nn.functional.pad(spoken.begins, (0, 1), value=True).gather(1, following)
        return encoder_on(word.device).ids(torch.where(word & begins, spoken.hashes[0], -1))

    def _similarity(self, asked: Asked, vectors: Tensor, kind: Tensor) -> Tensor:
        """Of `vectors` `[C, Q, 192]` of `kind` `[C, Q]` to the edits' questions, `[C, Q]`; -1 where one that it is not
        for is nearer."""
        row = asked.row.clamp(min=0)
        number = torch.arange(self.most, device=row.device)
        there = (number < self.counts.data[row][:, None])[:, None]
        index = torch.where(there[:, 0], self.starts.data[row][:, None] + number, 0)
        scores = _corrected(
            vectors @ self.questions.data[index].float().transpose(1, 2),
            self._usual(vectors)[..., None], self.usual.data[index][:, None],
            kind[..., None], self.kind.data[index][:, None].long(),
        )  # fmt: skip
        other = self.other.data[index][:, None]
        own = torch.where(there & ~other, scores, -1).amax(-1)
        against = torch.where(there & other, scores, -1).amax(-1)
        return torch.where(against < own, own, -1)

    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        text, first = call.text()
        starts = self.turns.starts(text)
        if call.mode is Mode.BOUNDARY:
            return self._decide_at_end(text, starts[:, -1:], call)
        return self._decide_everywhere(text, starts, first)

    def _decide_at_end(self, text: Tensor, since: Tensor, call: Call) -> Tensor:
        scores, rows, _ = self._scores_at_end(text, since)
        ends = ((call.step == 0) & call.real).any(1)
        return torch.where(ends, self._best(scores, rows, _last(text)), -1)

    def _scores_at_end(self, text: Tensor, since: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """How far over the threshold each named edit is, float32 `[B, K]`, its row, and (who, what)."""
        asked = self._ask(text, since, Mode.BOUNDARY)
        found, what = asked.found, asked.vectors.new_full(asked.found.row.shape, -2.0)
        if not asked.row.numel():
            return torch.full_like(what, -torch.inf), found.row, (torch.zeros_like(what), what)
        said = asked.vectors[:, -1:]
        what[asked.text, asked.place] = self._similarity(asked, said, asked.kind[:, -1:])[:, 0]
        column = sentence_starts(asked.spoken)[:, -1:]
        until = torch.full_like(since, text.shape[1] - 1)
        who = found.who(torch.maximum(since, column), until)[:, 0]
        row = found.row.clamp(min=0)
        kind = self.chats.data[row] == (since > 0)
        over = what - (1 - who) * PART - self.limits.data[row]
        scores = torch.where((found.row >= 0) & kind & (who >= PART), over, -torch.inf)
        return scores, found.row, (who, what)

    def _decide_everywhere(self, text: Tensor, starts: Tensor, first: int) -> Tensor:
        asked = self._ask(text, torch.zeros_like(starts[:, :1]), Mode.SCAN)
        if not asked.row.numel():
            return torch.full_like(text, -1)[:, first:]
        spoken, found, count = asked.spoken, asked.found, text.shape[1]
        position = torch.arange(spoken.real.shape[1], device=text.device).expand_as(spoken.column)
        latest = torch.zeros((text.shape[0], count + 1), dtype=torch.long, device=text.device)
        latest = latest.scatter_reduce(1, spoken.column.clamp(max=count), position, "amax")[:, :count].cummax(1).values
        at = latest[asked.text]
        said = asked.vectors.gather(1, at[..., None].expand(-1, -1, asked.vectors.shape[-1]))
        what = asked.vectors.new_full((text.shape[0], count, found.row.shape[1]), -2.0)
        what[asked.text, :, asked.place] = self._similarity(asked, said, asked.kind.gather(1, at))
        since = torch.maximum(sentence_starts(spoken).gather(1, latest), starts)
        until = torch.arange(count, device=text.device).expand_as(text)
        who = found.who(since, until)
        row = found.row.clamp(min=0)
        kind = self.chats.data[row][:, None] == (starts > 0)[..., None]
        over = what - (1 - who) * PART - self.limits.data[row][:, None]
        scores = torch.where((found.row >= 0)[:, None] & kind & (who >= PART), over, -torch.inf)
        whole = self._whole(spoken, count)
        return torch.where(whole, self._best(scores, found.row[:, None].expand_as(scores), text), -1)[:, first:]

    def _best(self, scores: Tensor, rows: Tensor, last: Tensor) -> Tensor:
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
        """The edits that a prompt names; behind them, to show how near they are, those whose questions are alike."""
        text, since, _ = self._texts(prompts.call)
        asked, own = self._questions(text, since[:, None]), self.starts.used
        alike = asked @ self.questions.used[own].float().T
        alike -= (self._usual(asked)[:, None] + self.usual.used[own]) / 2
        ranked = self.near(prompts, top)
        for matches, likeness in zip(ranked, alike, strict=True):
            named = {match.row for match in matches}
            nearest = likeness.topk(min(top + len(named), len(self))).indices.tolist()
            others = [self._match(row, 0.0, float(likeness[row])) for row in nearest if row not in named]
            matches += others[: top - len(matches)]
        return ranked

    def near(self, prompts: Prompts, top: int) -> list[list[Match]]:
        text, since, _ = self._texts(prompts.call)
        scores, rows, (who, what) = self._scores_at_end(text, since[:, None])
        acting = self._best(scores, rows, _last(text))[:, None]
        ranked: list[list[Match]] = []
        for b in range(text.shape[0]):
            first = (rows[b] == acting[b]) & (rows[b] >= 0)
            order = torch.where(first, torch.inf, scores[b]).argsort(descending=True, stable=True)
            named = order[scores[b, order] > -torch.inf][:top].tolist()
            ranked.append([self._match(int(rows[b, k]), float(who[b, k]), float(what[b, k])) for k in named])
        return ranked

    def _match(self, row: int, who: float, what: float) -> Match:
        score = what - (1 - who) * PART
        return Match(row, score, float(self.limits.data[row]), {"subject": who, "question": what})

    def _questions(self, text: Tensor, since: Tensor) -> Tensor:
        """What the last sentences of texts ask, whoever is named: float32 `[B, d]`."""
        spoken = self.subjects.stream.read(text)
        sentence, begun = sentences(spoken)
        heard = (sentence >= sentence[:, -1:] - begun[:, -1:].long()) & (spoken.column >= since)
        if self.asking is None:
            return encoder_on(text.device)(torch.where(heard, self._ids(spoken), 0))[:, -1]
        ends = torch.ones_like(heard).cumsum(1) == heard.shape[1]
        return self.asking(text, spoken.column, heard, torch.zeros_like(heard), ends)[:, -1]

    # Keeping

    TABLES = (*keys, "questions", "other", "kind", "usual")

    @property
    def _signature(self) -> int:
        """Of the encoder that made the vectors; 0 for one of the user's own, which the spec names."""
        return question_encoder().signature if self.asking is None else 0

    def tensors(self) -> dict[str, Tensor]:
        own = {name: getattr(self, name).used.contiguous() for name in self.TABLES}
        own |= {"turn": self.turns.turn, "encoder": torch.tensor(self._signature)}
        return own | {f"subjects.{n}": t for n, t in self.subjects.tensors().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        if int(tensors.get("encoder", torch.tensor(-1))) != self._signature:
            raise CheckpointError(
                "the memory's questions were written with another question encoder than this version of editmem has; "
                "write its edits again, which edits.jsonl or the ledger hold"
            )
        for name in self.TABLES:
            getattr(self, name).replace(tensors[name])
        self._count()
        self.turns.turn = tensors["turn"].to(self.turns.turn)
        prefix = "subjects."
        self.subjects.load_tensors({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})


def sentences(spoken: Spoken) -> tuple[Tensor, Tensor]:
    """The number of each piece's sentence, int64 `[B, P]`, and bool `[B, P]`, whether that has only just begun: what is
    as short as "It was in" or "Answer:" goes with the sentence before it."""
    opens = spoken.opens & spoken.real
    sentence = opens.long().cumsum(1)
    first = torch.where(opens, spoken.word, -1).cummax(1).values
    return sentence, spoken.word - first < SHORT


def sentence_starts(spoken: Spoken) -> Tensor:
    """The column from which on what is said at each piece is one question, int64 `[B, P]`."""
    opens = spoken.opens & spoken.real
    start = torch.where(opens, spoken.column, 0).cummax(1).values
    before = torch.where(
        start > torch.nn.functional.pad(start, (1, 0))[:, :-1], torch.nn.functional.pad(start, (1, 0))[:, :-1], 0
    )
    before = before.cummax(1).values
    return torch.where(sentences(spoken)[1], before, start)


def _corrected(cosine: Tensor, usual: Tensor, own: Tensor, kind: Tensor, own_kind: Tensor) -> Tensor:
    """How alike questions are, by their cosine, how alike each is to what is usually asked, and their kinds."""
    score = cosine - (usual + own) / 2 - torch.where(differ(kind, own_kind), KIND, 0.0)
    return torch.where((kind == WHETHER) == (own_kind == WHETHER), score, -1)


def limit(alike: Tensor, other: Tensor, usual: float) -> Tensor:
    """The similarity from which on an edit acts, a float32 scalar: above the usual one by questions that it is not for,
    but no higher than its own phrasings are alike.

    Args:
        alike: float32 `[Q, Q]`, of what is asked by its own prompt, by other ways to ask the same, and by questions
            that the edit is not for.
        other: bool `[Q]`, which the edit is not for.
        usual: the threshold of an edit of which nothing is known but its prompt.
    """
    alike = alike.masked_fill(torch.eye(len(alike), dtype=torch.bool, device=alike.device), -1)
    value = alike.new_tensor(usual)
    against = alike[other][:, ~other]
    if against.numel():
        value = torch.maximum(value, against.max() + BEYOND).clamp(max=usual + STRICTER)
    near = alike[~other][:, ~other].amax(1)[1:]  # of each phrasing to what else the edit has
    if near.numel():
        value = torch.minimum(value, near.min().clamp(min=usual))
    return value


def _behind(word: Tensor, inside: Tensor) -> Tensor:
    """Bool `[N, P]`, the pieces of the word after the last one `inside`; `word` int64 `[N, P]`, the number of each."""
    return (word == torch.where(inside, word, -2).amax(1, keepdim=True) + 1) & inside.any(1, keepdim=True) & ~inside


def _last_of(where: Tensor) -> Tensor:
    """The last column `[N, 1]` in which `where` holds, 0 for none."""
    return torch.where(where, torch.arange(where.shape[1], device=where.device), 0).amax(1, keepdim=True)


def _last(text: Tensor) -> Tensor:
    """The last token of texts `[B, S]` that is known, int64 `[B]`."""
    columns = torch.arange(text.shape[1], device=text.device)
    return text.gather(1, torch.where(text >= 0, columns, 0).amax(1, keepdim=True))[:, 0]
