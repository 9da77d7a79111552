"""Visual edits, found by their picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import OUTPUT, Call
from editmem.memory import Match, Prompts, Seen
from editmem.routing.router import at_prompt_ends, prompt_ends
from editmem.routing.whitening import Whitening
from editmem.state import Stored
from editmem.storage.snapshots import Restorable, Restore
from editmem.storage.table import Rows
from editmem.storage.vector_index import INDEXES, VectorIndex

UNCALIBRATED = torch.inf
FIXED = ("threshold", "same", "asking", "by_tower")


class PictureIndex(Stored):
    """Visual edits, found by their picture, and told apart by what is asked about it.

    A picture is the mean of what comes out of the host's own vision tower, where that has one output for each;
    elsewhere the mean of what takes its place in the prompt, as it enters the first block. A question is the state at
    the prompt's end. Both are compared as `Whitening` does, each with a threshold from built-in pictures: MemEIC has
    none for pictures and gives up four in ten answers about others (its image locality). An entry has two vectors: the
    mean of several views, for what looks like it, and that of the picture itself, which finds the very same picture
    however odd it is and however many others there are.

    Args:
        first, block: paths of the first block, and of the one whose input is compared at the prompt's end.
        vision_tower: path of the vision tower; None where there is none.
        image_token: the id that stands for a part of a picture.
        width: d, of the host's states.
        index: a name in `INDEXES`.
        threshold: cosine from which a picture is that of an edit; None to calibrate it.
        miss_rate: share of other views of the same built-in picture that may be missed, for the calibration.
        false_match_rate: share of the edits' own pictures that may pass for that of another edit; the more edits, the
            higher the threshold.
        question_false_match_rate: share of other questions about the same built-in picture that may pass for the
            edit's.
    """

    TOP = 16
    """Entries that are looked at first."""
    LEAN = 0.75
    """How far from other things to views of the same the threshold is."""
    SMOOTHING = 0.95
    """Of pictures: what a vision tower has learned moves little with the view."""
    FEWEST = 200
    """Fewer entries count as so many, the others far from each other."""
    SAMPLE = 512
    """How many entries the threshold of a crowd is taken from, at most."""
    SELF = 0.999
    """Cosine from which it is the very same picture, to the rounding of another batch."""

    threshold: Tensor
    same: Tensor
    asking: Tensor
    by_tower: Tensor

    def __init__(
        self,
        first: str,
        block: str,
        vision_tower: str | None,
        image_token: int,
        width: int,
        index: str,
        threshold: float | None,
        miss_rate: float,
        false_match_rate: float,
        question_false_match_rate: float,
    ) -> None:
        super().__init__()
        self.first, self.block, self.vision_tower, self.image_token = first, block, vision_tower, image_token
        self.fixed, self.miss_rate, self.false_match_rate = threshold, miss_rate, false_match_rate
        self.question_false_match_rate = question_false_match_rate
        self.looks = Whitening(width, self.SMOOTHING)
        self.plain, self.chat = Whitening(width), Whitening(width)
        self.register_buffer("threshold", torch.tensor(UNCALIBRATED, dtype=torch.float32))
        self.register_buffer("same", torch.tensor(UNCALIBRATED, dtype=torch.float32))
        self.register_buffer("asking", torch.tensor(UNCALIBRATED, dtype=torch.float32))
        self.register_buffer("by_tower", torch.tensor(False))
        self.make_index = INDEXES[index]
        self.index, self.originals = (RestorableIndex(self.make_index(width)) for _ in range(2))
        self.states = Rows((width,), torch.float32)
        self.chats = Rows((), torch.bool)
        self._limit: float | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def sees(self) -> bool:
        """Whether pictures leave a trace in the tokens of prompts; not so where hosts attend to them from outside."""
        return bool(torch.isfinite(self.threshold))

    # Calibrating

    def calibrate(self, seen: Seen) -> None:
        """Learn from built-in pictures what is the same and what is not."""
        tower = seen.views.call.noted.get(f"{self.vision_tower}{OUTPUT}")
        one_each = tower is not None and tower.ndim == 3 and len(tower) == len(seen.views.x)
        self.by_tower = torch.full_like(self.by_tower, one_each)
        if tower is not None and one_each:
            self._widen(tower.shape[-1])
        views, _ = self.pictures(seen.views)
        grid = views.unflatten(0, (seen.pictures, -1)).transpose(0, 1)
        held_out = torch.arange(seen.pictures, device=grid.device) % 3 == 2
        self.looks.fit(grid[:, ~held_out].flatten(0, 1), grid[:, ~held_out])
        self._set_thresholds(self.looks(grid[:, held_out]))
        if self.fixed is not None:
            self.threshold = torch.full_like(self.threshold, self.fixed)
        limits = []
        for chat, space in enumerate((self.plain, self.chat)):
            ends = self._ends(seen.asked[min(chat, len(seen.asked) - 1)].call)
            questions = ends.unflatten(0, (seen.pictures_asked, -1))
            space.fit(ends, questions)
            limits.append(space.threshold(questions, self.question_false_match_rate))
        self.asking = torch.stack(limits).max()

    def _set_thresholds(self, looks: Tensor) -> None:
        """Between what views of the same score (all but `miss_rate` above) and what other things do, nearer to the
        former, for more edits have more that is alike; and where half of the views of the same are above.

        A view is compared with the mean of the others, as prompts are with entries; `looks` are `[views, things, d]`.
        """
        self.threshold, self.same = (torch.full_like(self.threshold, UNCALIBRATED) for _ in range(2))
        whole = looks.sum(0)
        own = (looks * nn.functional.normalize(whole - looks, dim=-1)).sum(-1)
        cosines = torch.einsum("vtd,sd->vts", looks, nn.functional.normalize(whole, dim=-1))
        if looks.std() < 1e-4 or bool(cosines.isnan().any()):
            return
        same = torch.eye(looks.shape[1], dtype=torch.bool, device=looks.device)
        alike, others = torch.quantile(own, self.miss_rate), cosines[:, ~same].max()
        self.threshold = torch.lerp(others, alike, self.LEAN) if alike > others else alike
        self.same = torch.quantile(own, 0.5)

    def _widen(self, width: int) -> None:
        """Make room for vectors of the tower's width."""
        device = self.threshold.device
        self.looks = Whitening(width, self.SMOOTHING).to(device)
        self.index, self.originals = (RestorableIndex(self.make_index(width)) for _ in range(2))

    @property
    def limit(self) -> float:
        """The cosine from which a picture is that of an edit: the calibrated one, and no less than what keeps all but
        `false_match_rate` of the entries' own pictures from passing for that of another; but the very same picture
        always is."""
        if not self.sees:
            return UNCALIBRATED
        if self._limit is None:
            crowded = self._crowded() if self.fixed is None and len(self) > 1 else -1.0
            self._limit = min(self.SELF, max(float(self.threshold), crowded))
        return self._limit

    def _crowded(self) -> float:
        vectors = self.index.save().to(self.threshold.device)
        asked = vectors[:: -(-len(vectors) // self.SAMPLE)]
        cosines = asked @ vectors.T
        # Entries nearer than that are of the same picture.
        nearest = cosines.masked_fill(cosines >= self.same, -1.0).max(1).values
        # Two that happen to be alike are no crowd.
        alone = nearest.new_full((max(0, self.FEWEST - len(nearest)),), -1.0)
        return float(torch.quantile(torch.cat([nearest, alone]), 1 - self.false_match_rate))

    # Reading

    def pictures(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """The mean state of each row's pictures, float32 `[B, d]`, and whether it has any, bool `[B]`."""
        tokens, states = prompts.call.tokens, prompts.call.noted_at(self.first).float()
        assert tokens is not None
        at = (tokens == self.image_token).float()[..., None]
        count = at.sum(1)
        present = count[:, 0] > 0
        if not bool(self.by_tower):
            return (states * at).sum(1) / count.clamp(min=1), present
        if not bool(present.any()):
            return states.new_zeros((len(states), self.looks.background.shape[0])), present
        tower = prompts.call.noted_at(f"{self.vision_tower}{OUTPUT}").float()
        return shares_of(count[:, 0], len(tower)) @ tower.mean(1), present

    def _ends(self, call: Call) -> Tensor:
        return at_prompt_ends(call.noted_at(self.block), call)[0][:, 0]

    def _questions(self, call: Call, chat: Tensor) -> Tensor:
        ends = self._ends(call)
        return torch.where(chat[:, None], self.chat(ends), self.plain(ends))

    def append(self, prompts: Prompts, edits: Sequence[EncodedEdit], chat: Tensor) -> None:
        """Add edits, whose prompts are the first of `prompts`; `chat` (bool `[B]`) says which are turns of a chat."""
        count = len(edits)
        vectors = self.looks(self.pictures(prompts)[0])[:count]
        self.index.add(vectors)
        self.originals.add(vectors)
        self._limit = None
        self.states.append(self._questions(prompts.call, chat)[:count])
        self.chats.append(chat[:count])

    def average_views(self, views: Sequence[Prompts]) -> None:
        """Put what several views show on average in the place of the last entries, one `views` for each.

        One view may be an odd one; the mean lies nearer to all others.
        """
        means = torch.stack([self.looks(self.pictures(prompts)[0]).mean(0) for prompts in views])
        first = len(self) - len(views)
        self.index.remove(torch.arange(first, len(self)))
        self.index.add(nn.functional.normalize(means, dim=-1))
        self._limit = None

    def scores(self, prompts: Prompts, chat: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest entries: cosines of pictures and of questions, float32 `[B, 2K]`, and their numbers `[B, 2K]`.

        The first K are those of the very same picture, the others those of the nearest mean views; an entry may be
        among both. What is no candidate has a cosine of -1.
        """
        pictures, present = self.pictures(prompts)
        vectors, top = self.looks(pictures), min(top, len(self))
        (own, first), (mean, second) = self.originals.search(vectors, top), self.index.search(vectors, top)
        looks, numbers = torch.cat([torch.where(own >= self.SELF, own, -1.0), mean], 1), torch.cat([first, second], 1)
        looks = torch.where(present[:, None], looks, -1.0)
        questions = torch.einsum("bd,bkd->bk", self._questions(prompts.call, chat), self.states.data[numbers].float())
        same = self.chats.data[numbers] == chat[:, None]
        return looks, torch.where(same, questions, -1.0), numbers

    def decide(self, prompts: Prompts, chat: Tensor) -> tuple[Tensor, Tensor]:
        """The entry of each row's picture, int64 `[B]`, -1 for none; and whether it is what is asked, bool `[B]`."""
        rows = prompts.call.real.shape[0]
        if not len(self):
            none = torch.full((rows,), -1, device=chat.device)
            return none, none >= 0
        top = self.TOP
        looks, questions, numbers = self.scores(prompts, chat, top)
        while top < len(self) and bool((looks.unflatten(1, (2, -1))[..., -1] >= self.limit).any()):
            top *= 4  # one picture, many questions
            looks, questions, numbers = self.scores(prompts, chat, top)
        seen = (looks >= self.limit) & prompt_ends(prompts.call)[1][:, None]
        wanted = seen & (questions >= self.asking)
        asked = wanted.any(1)
        # Among the edits of this picture the one that is asked for; else any of them, the nearest. An edit of the very
        # same picture goes before those of pictures like it.
        fit = questions + torch.where(looks >= self.SELF, 2 + looks, 0.0)
        best = torch.where(asked, torch.where(wanted, fit, -2.0).argmax(1), looks.argmax(1))
        entry = numbers.gather(1, best[:, None])[:, 0]
        return torch.where(seen.any(1), entry, -1), asked

    def rank(self, prompts: Prompts, chat: Tensor, top: int) -> list[list[Match]]:
        """The nearest entries for each prompt, best first, those rendered otherwise last; scores are cosines of
        pictures."""
        if not len(self):
            return [[] for _ in chat]
        columns = [column.tolist() for column in self.scores(prompts, chat, top)]
        return [self._ranked(list(zip(*entries, strict=True))) for entries in zip(*columns, strict=True)]

    def _ranked(self, entries: Sequence[tuple[float, float, int]]) -> list[Match]:
        best: dict[int, Match] = {}
        for look, question, row in sorted(entries, key=_order, reverse=True):
            if look > -1 and row not in best:
                best[row] = Match(row, look, self.limit, {"picture": look, "question": question})
        return list(best.values())

    def keep(self, rows: Tensor) -> None:
        """Drop all entries but these."""
        dropped = torch.ones(len(self), dtype=torch.bool, device=rows.device)
        dropped[rows] = False
        for index in (self.index, self.originals):
            index.remove(dropped.nonzero().squeeze(1))
        self._limit = None
        self.states.keep(rows)
        self.chats.keep(rows)

    # Keeping

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}index"] = self.index.save()
        destination[f"{prefix}originals"] = self.originals.save()

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._widen(state_dict[f"{prefix}looks.background"].shape[0])
        self.index.load(state_dict[f"{prefix}index"].to(self.threshold.device))
        self.originals.load(state_dict[f"{prefix}originals"].to(self.threshold.device))
        self._limit = None


def with_originals(tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
    """Saved tensors, where they are of a time when pictures' own vectors were not kept beside the means of views."""
    mean, own = f"{prefix}index", f"{prefix}originals"
    return {**tensors, own: tensors[mean]} if mean in tensors and own not in tensors else tensors


class RestorableIndex(Restorable):
    """An index that can go back to where it was, whatever library it is in.

    Entries that were added are taken out again; only where older ones were taken out, all are kept a copy of.

    Args:
        index: the index.
    """

    def __init__(self, index: VectorIndex) -> None:
        self._index = index
        self._count = 0  # when the last snapshot was made
        self._vectors: Tensor | None = None  # what it held then; None while all of that is still there

    def __len__(self) -> int:
        return len(self._index)

    def add(self, vectors: Tensor) -> None:
        self._index.add(vectors)

    def remove(self, numbers: Tensor) -> None:
        if self._vectors is None and len(numbers) and int(numbers.min()) < self._count:
            self._vectors = self.save()[: self._count]
        self._index.remove(numbers)

    def search(self, queries: Tensor, top: int) -> tuple[Tensor, Tensor]:
        return self._index.search(queries, top)

    def save(self) -> Tensor:
        return self._index.save()

    def load(self, vectors: Tensor) -> None:
        if self._vectors is None:
            self._vectors = self.save()[: self._count]
        self._index.load(vectors)

    def snapshot(self) -> Restore:
        self._count, self._vectors = len(self), None

        def restore() -> None:
            if self._vectors is not None:
                self._index.load(self._vectors)
            elif len(self) > self._count:
                self._index.remove(torch.arange(self._count, len(self)))
            self._vectors = None

        return restore


def _order(entry: tuple[float, float, int]) -> tuple[bool, float]:
    look, question, _ = entry
    return question > -1, look


def shares_of(counts: Tensor, pictures: int) -> Tensor:
    """Which pictures (or parts of pictures) are in which row, float32 `[B, N]`; rows sum to 1 where there are any.

    Args:
        counts: `[B]`, tokens of pictures in each row.
        pictures: N, how many the tower saw, in the order of the rows.
    """
    ends = (counts.cumsum(0) / counts.sum() * pictures).round()
    number = torch.arange(pictures, device=counts.device)
    shares = ((number < ends[:, None]) & (number >= (ends - ends.diff(prepend=ends.new_zeros(1)))[:, None])).float()
    return shares / shares.sum(1, keepdim=True).clamp(min=1)
