"""Whom or what texts are about: the names of all edits, looked up in what has been said."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editmem.hosts.forward import Mode
from editmem.routing import naming
from editmem.routing.name_edges import Edges, edges_of
from editmem.routing.naming import Said
from editmem.state import Stored
from editmem.storage.table import Rows
from editmem.text.spelling import PRIME, Has, Is, pieces
from editmem.text.word_stream import Spoken, Stream, fitted

LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)
"""Words of a phrase that are looked up; of one of another length its last ones are, and the rest compared."""
NEVER = (1 << 63) - 1
NAMED, CAPITAL, COMMON, CAPITALS, PART, PERSONAL, SMALL_WORDS = 1, 2, 4, 8, 16, 32, 64
"""What is kept of a phrase: written as a name; with a capital; of common words only, those in capitals; only part of
a name; written as a person's is; of function words only."""
UNSEEN = 128
"""K where it cannot be seen for nothing how many there are."""
PART_WEIGHT = 0.7
AFTER_WEIGHT = 0.8
"""Of a person's whole name that a further word with a capital stands in front of: a title, or a stray word."""
LOWER_WEIGHT = 0.95
SOME = 0.5
"""Factor on the score of an edit with several names of which some are missing."""

Choose = Callable[[int, Sequence[tuple[int, int]]], int | None]
"""Of an edit's number and token spans, [start, end), of its prompt: which of them is its subject; None for none."""


@dataclass
class Found:
    """The names of edits that texts have, K for each text; what is not used has row -1.

    Attributes:
        row: int64 `[B, K]`, the edit.
        start: int64 `[B, K]`, the column where its name begins.
        end: int64 `[B, K]`, the column from which on it is said.
        cut: int64 `[B, K]`, the column from which on it turns out to be another, longer name.
        weight: float32 `[B, K]`, how sure the name is the edit's: 1, or less for a part of it.
        group: int64 `[B, K]`, which of the edit's names it is; an edit of several needs all of them.
        groups: int64 `[B, K]`, how many names the edit has.
        ordered: bool `[B, K]`, whether they are to be said in this order.
        place: int64 `[B, K]`, the first of the K that has the same edit.
    """

    row: Tensor
    start: Tensor
    end: Tensor
    cut: Tensor
    weight: Tensor
    group: Tensor
    groups: Tensor
    ordered: Tensor
    place: Tensor

    @classmethod
    def nothing(cls, tokens: Tensor) -> "Found":
        """Of token ids `[B, S]` that name no edit."""
        none = torch.full((tokens.shape[0], 1), -1, device=tokens.device)
        return cls(none, none, none, none, none.float(), none, none, none > 0, torch.zeros_like(none))

    def who(self, since: Tensor, until: Tensor) -> Tensor:
        """How well what has been said names each edit.

        Args:
            since: int64 `[B, Q]`, the first column that counts.
            until: int64 `[B, Q]`, the last column that counts.

        Returns:
            float32 `[B, Q, K]`, from 0 to 1, of the edits in `row`; of several places with the same edit all but
            the first have 0.
        """
        began, ended = self.start[:, None] >= since[..., None], self.end[:, None] <= until[..., None]
        active = (self.row >= 0)[:, None] & began & ended & (self.cut[:, None] > until[..., None])
        place = self.place[:, None].expand_as(active)
        total = self.weight.new_zeros(active.shape)
        before = torch.full(active.shape, -1, device=self.row.device)
        in_order, said = torch.ones_like(active), torch.zeros_like(total)
        for group in range(naming.MOST_NAMES):
            own = active & (self.group == group)[:, None]
            weight = torch.where(own, self.weight[:, None], 0)
            best = torch.zeros_like(total).scatter_reduce(2, place, weight, "amax")
            total, said = total + best, said + (best > 0)
            where = torch.where(own, self.start[:, None], -1)
            where = torch.full_like(before, -1).scatter_reduce(2, place, where, "amax")
            in_order &= (where < 0) | (where > before)
            before = torch.maximum(before, where)
        first = self.place == torch.arange(self.place.shape[1], device=self.row.device)
        counts = (first & (self.row >= 0))[:, None] & (in_order | ~self.ordered[:, None])
        groups = self.groups.clamp(min=1)[:, None]
        return torch.where(counts, total / groups * torch.where(said < groups, SOME, 1), 0)


FEW = 16
"""Values that are faster compared one by one than all at once."""
NOBODY = -1
"""In the place of an edit that is no more."""


class Subjects(Stored):
    """The names of all edits' subjects, whole and in order.

    A name is a phrase of 1 to 32 words; one sorted table holds a key of every phrase of every edit. Of a text the
    last 1, 2, ... words at each piece are looked up in it, whatever the number of edits. A name that is part of a
    longer one, by its capitals, numbers and signs, is not found; nor is one inside another edit's longer name.

    Args:
        stream: the words of the host's vocabulary.
        most: the largest K, names of edits that are found in one text; those said last come first. On other devices
            than CPUs it is `UNSEEN`, if that is less.
    """

    keys = ("entries", "links", "claims", "edits")

    sorted_keys: Tensor
    named: Tensor
    order: Tensor
    runs: Tensor
    lengths: Tensor

    def __init__(self, stream: Stream, most: int = 1024) -> None:
        super().__init__()
        self.stream, self.most = stream, most
        self.entries = Rows((4,), torch.int64, NEVER)  # key, key of the whole phrase, hash of its accents, subject
        self.links = Rows((4,), torch.int32)  # edit, flags, group, words
        self.claims = Rows((3,), torch.int32)  # edit, word, subject
        self.edits = Rows((2,), torch.int32)  # groups, whether ordered
        self.claimed = Rows((2,), torch.int64, saved=False)  # of each slot of words the least and the greatest subject
        for name in ("sorted_keys", "named", "order", "runs"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64), persistent=False)
        self.register_buffer("lengths", torch.tensor(LENGTHS), persistent=False)
        self._sort()

    def __len__(self) -> int:
        return len(self.edits)

    # Writing

    def append(
        self,
        prompts: Sequence[Sequence[int]],
        subjects: Sequence[Sequence[int] | None],
        aliases: Sequence[Sequence[Sequence[int]]],
        choose: Choose | None = None,
    ) -> None:
        """Add edits.

        Args:
            prompts: token ids of each edit's prompt; of a chat those of its last turn.
            subjects: token ids of what it is about; None to find that in the prompt.
            aliases: token ids of other names of it.
            choose: which span is the subject, where none is written as a name.
        """
        spoken = naming.said(self.stream, prompts)
        given = naming.said(self.stream, [subject or [] for subject in subjects])
        others = iter(naming.said(self.stream, [alias for names in aliases for alias in names]))
        entries: list[tuple[int, ...]] = []
        links: list[tuple[int, ...]] = []
        claims: list[tuple[int, ...]] = []
        edits: list[tuple[int, int]] = []
        for number, (words, subject) in enumerate(zip(spoken, given, strict=True)):
            row = len(self) + number
            names = [[naming.name_of(subject)]] if subject else self._names(words, number, choose)
            names[0] += [naming.name_of(next(others)) for _ in aliases[number]]
            edits.append((len(names), int(not subject and _in_order(words, names))))
            for group, phrases in enumerate(names):
                about = naming.code_of(phrases[0])[0] % PRIME
                parts = [part for part in map(naming.partial_of, phrases) if part]
                for phrase, part in [(p, 0) for p in phrases if p] + [(p, PART) for p in parts]:
                    length = max(n for n in LENGTHS if n <= len(phrase))
                    flags = _flags(phrase) | part
                    key = naming.code_of(phrase[-length:])[0] * 2 + (flags & NAMED)
                    entries.append((key, *naming.code_of(phrase), about))
                    links.append((row, flags, group, len(phrase)))
                claims += [(row, word.hashes[0], about) for phrase in phrases for word in phrase if word.named]
        tables, capacity = (self.entries, self.links, self.claims, self.edits), len(self.entries.data)
        held = len(self.entries), len(self.claims)
        for table, rows in zip(tables, (entries, links, claims, edits), strict=True):
            if rows:
                table.append(torch.tensor(rows))
        if len(self.entries.data) == capacity and len(self.claimed) == 4 * len(self.claims.data):
            self._insert(*held)
        else:
            self._sort()

    def _names(self, words: Sequence[Said], number: int, choose: Choose | None) -> list[list[list[Said]]]:
        """The names in a prompt, each with other ways to say it."""
        spans = naming.names_in(words)
        if not spans and choose is not None and (candidates := naming.candidate_spans(words)):
            chosen = choose(number, [(words[start].column, words[end - 1].end + 1) for start, end in candidates])
            spans = [] if chosen is None else [candidates[chosen]]
        spans = spans or naming.content_of(words)
        names = [naming.name_of(words[start:end]) for start, end in spans]
        return [[name, *([bare] if len(bare := naming.untitled(name)) < len(name) else [])] for name in names] or [[[]]]

    def bury(self, rows: Sequence[int]) -> None:
        """The edits in these rows have no names any more; no row of any table moves."""
        buried = torch.tensor(list(rows), dtype=torch.int32, device=self.links.data.device)
        links, claims = (_among(table.used[:, 0], buried).nonzero()[:, 0] for table in (self.links, self.claims))
        slots = (self.claims.used[claims, 1] % len(self.claimed)).unique()
        for table, places in ((self.links, links), (self.claims, claims)):
            values = table.used[places]
            values[:, 0] = NOBODY
            table.put(places, values)
        if len(slots):
            used, slot = self.claims.used, self.claims.used[:, 1] % len(self.claimed)
            left = (_among(slot, slots) & (used[:, 0] != NOBODY)).nonzero()[:, 0]
            bounds = _bounds(torch.searchsorted(slots, slot[left]), used[left, 2].long(), len(slots))
            self.claimed.put(slots.long(), bounds)

    def keep(self, rows: Tensor) -> None:
        """Drop all edits but these (int64, ascending)."""
        new = torch.full((len(self) + 1,), -1, device=rows.device)
        new[rows] = torch.arange(rows.shape[0], device=rows.device)
        for table in (self.links, self.claims):
            used = table.used.clone()
            used[:, 0] = new[used[:, 0].long()].to(used.dtype)
            kept = used[:, 0] >= 0
            table.replace(used[kept])
            if table is self.links:
                self.entries.replace(self.entries.used[kept])
        self.edits.keep(rows)
        self._sort()

    def _sort(self) -> None:
        """Make the tables that `find` reads."""
        keys, self.order = self.entries.data[:, 0].sort(stable=True)
        self.sorted_keys, self.named = keys >> 1, keys & NAMED
        self.runs = _runs(self.sorted_keys, self.named)
        size = 4 * self.claims.data.shape[0]
        used = self.claims.used[self.claims.used[:, 0] != NOBODY].long()
        self.claimed.replace(_bounds(used[:, 1] % size, used[:, 2], size))

    def _insert(self, entries: int, claims: int) -> None:
        """As `_sort`, where no more than what was appended behind the first `entries` and `claims` is new."""
        count = len(self.entries)
        new, which = self.entries.data[entries:count, 0].sort(stable=True)
        keys = self.sorted_keys[:entries] * 2 + self.named[:entries]
        place = torch.searchsorted(keys, new, right=True) + torch.arange(len(new), device=new.device)
        free = torch.ones(count, dtype=torch.bool, device=new.device)
        free[place] = False

        def inserted(held: Tensor, values: Tensor) -> Tensor:
            merged = held.clone()  # rows that are not in use stay where they are
            merged[:count][free], merged[place] = held[:entries], values
            return merged

        self.sorted_keys, self.named = inserted(self.sorted_keys, new >> 1), inserted(self.named, new & NAMED)
        self.order = inserted(self.order, entries + which)
        self.runs = inserted(self.runs, self.runs.new_zeros((len(new), 2)))
        known, changed = self.sorted_keys[:count], (new >> 1).unique()
        start, end = torch.searchsorted(known, changed), torch.searchsorted(known, changed, right=True)
        length = end - start
        own = torch.arange(int(length.sum()), device=new.device)
        own += torch.repeat_interleave(start - length.cumsum(0) + length, length)
        self.runs[own] = _runs(known[own], self.named[own])
        used = self.claims.used[claims:].long()
        slots, slot = (used[:, 1] % len(self.claimed)).unique(return_inverse=True)
        held, found = self.claimed.data[slots], _bounds(slot, used[:, 2], len(slots))
        both = torch.stack([torch.minimum(held[:, 0], found[:, 0]), torch.maximum(held[:, 1], found[:, 1])], 1)
        self.claimed.put(slots, both)

    # Reading

    def find(self, tokens: Tensor, since: Tensor, mode: Mode = Mode.BOUNDARY, spoken: Spoken | None = None) -> Found:
        """The edits whose names texts have.

        Args:
            tokens: int64 `[B, S]`; negative where nothing is known.
            since: int64 `[B, 1]`, the first column that counts.
            mode: BOUNDARY where only the end of the text is asked about, and K need not hold names that have
                turned out to be others; else every column can be asked about.
        """
        spoken = self.stream.read(tokens) if spoken is None else spoken
        looked_up = self._look_up(spoken, since)
        if tokens.device.type == "cpu" and not bool(looked_up[-1].any()):  # elsewhere that would have to be waited for
            return Found.nothing(tokens)
        edges = edges_of(spoken, tokens.shape[1])
        piece, start, entry, found = self._hits(spoken, edges, looked_up, tokens.shape[1], mode)
        whole, accents, subject = self.entries.data[entry][..., 1:].unbind(-1)
        row, flags, group, words = self.links.data[entry].long().unbind(-1)
        found &= row != NOBODY
        key, accent, start = self.stream.phrase(spoken, piece, words)
        weight = self._weight(spoken, edges, piece, start, flags, subject)
        same = (key == whole) & ((accent == accents) | (accent == 0) | (accents == 0))
        named = (flags & NAMED) > 0
        end = spoken.column.gather(1, piece)
        cut = torch.where(named, edges.cut.gather(1, piece), edges.goes_on.gather(1, piece))
        began = spoken.start.gather(1, start)
        found &= same & (weight > 0) & (cut > end) & (began >= since)
        cut = _shadowed(found, start, piece, end, cut)
        found &= cut > end
        edit = self.edits.data[torch.where(found, row, 0)].long()
        row = torch.where(found, row, -1)
        place = (row[:, :, None] == row[:, None]).long().argmax(-1)
        return Found(row, began, end, cut, torch.where(found, weight, 0), group, edit[..., 0], edit[..., 1] > 0, place)

    def _look_up(self, spoken: Spoken, since: Tensor) -> tuple[Tensor, ...]:
        """The last words at each piece, N phrases: last piece, first piece, place in `sorted_keys` and which are there,
        `[B, N]` each."""
        rows, count = spoken.real.shape
        piece = torch.arange(count, device=since.device).repeat_interleave(len(LENGTHS)).expand(rows, -1)
        key, _, start = self.stream.phrase(spoken, piece, self.lengths.repeat(count).expand(rows, -1))
        at = torch.searchsorted(self.sorted_keys, key).clamp(max=self.sorted_keys.shape[0] - 1)
        return piece, start, at, (self.sorted_keys[at] == key) & (key >= 0) & (spoken.start.gather(1, start) >= since)

    def _hits(
        self, spoken: Spoken, edges: Edges, looked_up: tuple[Tensor, ...], tokens: int, mode: Mode
    ) -> tuple[Tensor, ...]:
        """Up to K entries whose keys are in the texts: piece, first piece, entry and which are there, `[B, K]` each."""
        piece, start, at, there = looked_up
        rows, device = piece.shape[0], piece.device
        end = spoken.column.gather(1, piece)
        plain, named = (edges.goes_on.gather(1, piece), edges.cut.gather(1, piece))
        until = torch.full_like(end, tokens - 1) if mode is Mode.BOUNDARY else end
        open_ = (edges.open | edges.after).gather(1, start)
        run = self.runs[at] * torch.stack([there & (plain > until), there & open_ & (named > until)], -1)
        counts = run.flatten(1).flip(1)
        total = counts.cumsum(1)
        wanted = torch.arange(fitted(self.most, total[:, -1], UNSEEN), device=device).expand(rows, -1).contiguous()
        slot = torch.searchsorted(total, wanted, right=True)
        found = slot < counts.shape[1]
        slot = slot.clamp(max=counts.shape[1] - 1)
        within = wanted - total.gather(1, slot) + counts.gather(1, slot)
        own = counts.shape[1] - 1 - slot
        base = at.gather(1, own // 2) + torch.where(own % 2 == 1, self.runs[at.gather(1, own // 2)][..., 0], 0)
        entry = self.order[(base + within).clamp(0, self.order.shape[0] - 1)]
        return piece.gather(1, own // 2), start.gather(1, own // 2), entry, found

    def _weight(
        self, spoken: Spoken, edges: Edges, piece: Tensor, start: Tensor, flags: Tensor, subject: Tensor
    ) -> Tensor:
        """How sure hits are by the way they are written, float32 `[B, K]`; 0 where they are none."""

        def at(values: Tensor, where: Tensor = piece) -> Tensor:
            return values.gather(1, where)

        upper, lower = at(spoken.has(Has.UPPER)), at(spoken.has(Has.LOWER))
        capitals = (spoken.has(Has.UPPER) & spoken.real).long().cumsum(1)
        any_upper = at(capitals) - at(capitals, start) + at(spoken.has(Has.UPPER).long(), start) > 0
        small = (flags & CAPITAL > 0) & ~any_upper
        last = at(spoken.before, start)
        article = at(spoken.among("indefinite"), last.clamp(min=0)) & (last >= 0)
        word_start = at(spoken.first, at(spoken.word).clamp(min=0)).clamp(max=spoken.real.shape[1] - 1)
        common = ~(flags & COMMON > 0) | (upper & (lower == ~(flags & CAPITALS > 0)))
        first = at(spoken.opens, word_start)
        common &= ~(first & (flags & (SMALL_WORDS | CAPITALS) == SMALL_WORDS))
        small |= first & (flags & (COMMON | CAPITALS) == COMMON)
        low, high = self.claimed.data[at(spoken.hashes[0]) % len(self.claimed)].unbind(-1)
        part = ~(flags & PART > 0) | (upper & lower & at(edges.part_open, start) & (low == high) & (low == subject))
        weight = torch.where(flags & PART > 0, PART_WEIGHT, 1.0) * torch.where(small, LOWER_WEIGHT, 1.0)
        after = torch.where(at(edges.after, start) & (flags & PERSONAL > 0), AFTER_WEIGHT, 0.0)
        weight = weight * torch.where(at(edges.open, start) | ~(flags & NAMED > 0), 1.0, after)
        return torch.where(common & part & ~(small & article), weight, 0)

    # Keeping

    def restored(self) -> None:
        self._sort()


def _runs(keys: Tensor, named: Tensor) -> Tensor:
    """Of sorted keys how many of the same follow, itself included, that are no names and that are, int64 `[n, 2]`."""
    count, plain = keys.shape[0], 1 - named
    last = torch.cat([keys[1:] != keys[:-1], torch.ones_like(keys[:1], dtype=torch.bool)])
    position = torch.arange(count, device=keys.device)
    end = torch.where(last, position, count).flip(0).cummin(0).values.flip(0) + 1
    until = plain.cumsum(0)
    left = until[end - 1] - until + plain
    return torch.stack([left, end - position - left], 1)


def _among(values: Tensor, some: Tensor) -> Tensor:
    """Bool, as `values`: which of them are among `some`, of which there are few, mostly."""
    if len(some) > FEW:
        return torch.isin(values, some)
    found = torch.zeros_like(values, dtype=torch.bool)
    for one in some:
        found |= values == one
    return found


def _bounds(slot: Tensor, subject: Tensor, count: int) -> Tensor:
    """The least and the greatest subject of each of `count` slots, int64 `[count, 2]`."""
    least = torch.full((count,), NEVER, device=slot.device).scatter_reduce(0, slot, subject, "amin")
    return torch.stack([least, torch.full_like(least, -1).scatter_reduce(0, slot, subject, "amax")], 1)


def _flags(phrase: Sequence[Said]) -> int:
    capital = any(word.kind & Has.UPPER for word in phrase)
    named = any(word.named or word.kind & 7 == Is.CHARACTER for word in phrase)
    common = capital and all(word.among("function", "starter") for word in phrase)
    capitals = common and not any(word.kind & Has.LOWER for word in phrase)
    written = NAMED * named | CAPITAL * capital | COMMON * common | CAPITALS * capitals
    functions = capital and all(word.among("function") for word in phrase)
    return written | PERSONAL * naming.personal(phrase) | SMALL_WORDS * functions


def _in_order(words: Sequence[Said], names: Sequence[Sequence[Sequence[Said]]]) -> bool:
    """Whether a prompt's names are joined by a word that gives them an order, soon behind one of them: "Oslo to Rome",
    but not "Oslo, according to laws of Norway"."""
    keys = {piece.hashes[0] << 31 | piece.hashes[1] for word in naming.IN_ORDER for piece in pieces(word)}
    if len(names) < 2:
        return False
    ends = {group[0][-1].column for group in names}
    inside = range(names[0][0][-1].end, names[-1][0][0].column + 1)
    return any(
        word.key in keys and word.column in inside and any(w.column in ends for w in words[max(0, i - 2) : i])
        for i, word in enumerate(words)
    )


def _shadowed(found: Tensor, start: Tensor, piece: Tensor, end: Tensor, cut: Tensor) -> Tensor:
    """`cut` of hits `[B, K]`, not beyond the column in which a longer hit that has them inside is said."""
    inside = (start[:, None] <= start[..., None]) & (piece[:, None] >= piece[..., None])
    longer = (piece - start)[:, None] > (piece - start)[..., None]
    covered = inside & longer & found[:, None] & (cut > end)[:, None]
    return torch.minimum(cut, torch.where(covered, end[:, None], torch.iinfo(torch.int64).max).amin(-1))
