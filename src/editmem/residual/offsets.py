"""What edits add to the output of a site: the contract of a storage, and offsets kept apart."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from editmem import kernels
from editmem.hosts.forward import Call
from editmem.memory import Draft
from editmem.routing.answers import Action
from editmem.state import Stored
from editmem.storage.table import Rows
from editmem.storage.targets import spans, starts

OWN = -1
"""In the place of a token: an offset that was learned for one edit."""


class Storage(Stored, ABC):
    """Holds what edits add.

    Attributes:
        replays: whether edits share weights, so that dropping one means writing the others anew.
    """

    replays: bool

    @abstractmethod
    def add(self, x: Tensor, out: Tensor, action: Action, masks: Tensor | None) -> Tensor:
        """`out` `[B, T, d]` plus what the acting edits add; other tokens are `out` bit for bit.

        Args:
            x: `[B, T, D]`, what went into the site.
            out: what came out.
            action: which edit acts where.
            masks: int32 `[N, words]`, the edits' packed TopHash masks, for storages that read by mask.
        """

    @abstractmethod
    def draft(self, lengths: Tensor, owner: Tensor, scale: Tensor, masks: Tensor | None) -> Draft:
        """Begin to write E edits.

        Args:
            lengths: int64 `[E]`, tokens in each target.
            owner: int64 `[B]`, which edit each row of the batch belongs to.
            scale: float32 `[E]`, root mean square of the site's output at each edit's prompt end.
            masks: int32 `[E, words]`, their packed TopHash masks.
        """

    @abstractmethod
    def commit(self, draft: Draft, lengths: Tensor) -> None:
        """Keep what was drafted."""

    @abstractmethod
    def keep(self, rows: Tensor, lengths: Tensor) -> None:
        """Drop all edits but those in `rows`; `lengths` are those of all edits held until now."""

    def hosted(self) -> Sequence[Tensor]:
        """As `Memory.hosted`."""
        return []

    def rebuild(self, lengths: Tensor) -> None:
        """After loading: work out what follows from the lengths of all targets.

        Raises:
            ValueError: if tensors do not belong together.
        """

    def completed(self, tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
        """What was saved by an earlier version, its tensors' names beginning with `prefix`, as this one has it."""
        return tensors


class FactoredStorage(Storage):
    """Each edit's output offsets, one for each token of its target.

    Below the site the host is frozen, so while an edit is learned the activations at its own tokens never
    change, and every gradient step on W_m there does no more than move the output at those tokens. The
    moved output is therefore all there is to keep, and edits do not touch each other. The offset with which
    edits of a token begin is held once for all that kept it.

    Args:
        width: d, of the site's output.
        dtype: of the site's output; offsets are kept in it.
        rate: Adam's step size, as a share of the root mean square of the site's output.
        begins: whether edits begin with offsets that say their tokens, where the host has them.
    """

    replays = False

    def __init__(self, width: int, dtype: torch.dtype, rate: float, begins: bool = False) -> None:
        super().__init__()
        self.rate, self.begins = rate, begins
        self.offsets = Rows((width,), dtype)
        self.tokens = Rows((), torch.int32, OWN)
        self.places = Rows((), torch.int32)
        self.starts = Rows((), torch.long, saved=False)

    def add(self, x: Tensor, out: Tensor, action: Action, masks: Tensor | None) -> Tensor:
        place = torch.where(action.active, self.starts.data[action.edit] + action.step, 0)
        index = self.places.data[place].long()
        if torch.is_grad_enabled():
            return kernels.factored_delta(out, self.offsets.data, index, action.active)
        kernels.factored_delta_(out, self.offsets.data, index, action.active)
        return out

    def draft(self, lengths: Tensor, owner: Tensor, scale: Tensor, masks: Tensor | None) -> "OffsetDraft":
        offsets = torch.zeros(
            (lengths.shape[0], int(lengths.max()), self.offsets.data.shape[1]),
            dtype=torch.float32,
            device=lengths.device,
        )
        draft = OffsetDraft(offsets, lengths, owner, self.rate * scale, self.offsets.data.dtype)
        draft.begins = self.begins
        return draft

    def commit(self, draft: Draft, lengths: Tensor) -> None:
        assert isinstance(draft, OffsetDraft)
        self.starts.append(len(self.places) + starts(lengths))
        used = torch.arange(draft.offsets.shape[1], device=lengths.device) < lengths[:, None]
        offsets = draft.offsets.detach()[used].to(self.offsets.data)
        self._append(offsets, draft.tokens[used].to(self.tokens.data))

    def _append(self, offsets: Tensor, tokens: Tensor) -> None:
        """Offsets `[n, d]`, and int32 `[n]`, which token each is the first offset of, or `OWN`."""
        places, new, first = list[int](), list[int](), dict[int, int]()
        for number, token in enumerate(tokens.tolist()):
            if (place := first.get(token)) is None and token != OWN:
                place = self._place_of(token, offsets[number])
            if place is None:
                place = len(self.offsets) + len(new)
                new.append(number)
            if token != OWN:
                first[token] = place
            places.append(place)
        self.offsets.append(offsets[new])
        self.tokens.append(tokens[new])
        self.places.append(torch.tensor(places))

    def _place_of(self, token: int, offset: Tensor) -> int | None:
        """Where this very offset is held already."""
        held = (self.tokens.used == token).nonzero()[:, 0].tolist()
        return next((place for place in held if torch.equal(self.offsets.data[place], offset)), None)

    def hosted(self) -> Sequence[Tensor]:
        return [self.offsets.data]

    def keep(self, rows: Tensor, lengths: Tensor) -> None:
        """As if the others had never been: offsets stand in the order in which edits first use them."""
        places = self.places.used[spans(lengths, rows).to(self.places.data.device)].long()
        held, which = places.unique(return_inverse=True)
        use = torch.arange(len(which), device=which.device)
        order = use.new_full(held.shape, len(which)).scatter_reduce(0, which, use, "amin").argsort()
        self.offsets.keep(held[order])
        self.tokens.keep(held[order])
        self.places.replace(order.argsort()[which])
        self.starts.replace(starts(lengths[rows]))

    def rebuild(self, lengths: Tensor) -> None:
        if len(self.places) != int(lengths.sum()) or len(self.tokens) != len(self.offsets):
            raise ValueError("offsets, their tokens and places, and the targets' lengths do not belong together")
        if len(self.places) and not 0 <= int(self.places.used.min()) <= int(self.places.used.max()) < len(self.offsets):
            raise ValueError("a place names an offset that is not there")
        self.starts.replace(starts(lengths))

    def completed(self, tensors: Mapping[str, Tensor], prefix: str) -> Mapping[str, Tensor]:
        offsets = tensors.get(f"{prefix}offsets.data")
        if offsets is None or f"{prefix}places.data" in tensors:
            return tensors
        places = torch.arange(len(offsets), dtype=torch.int32)
        return {**tensors, f"{prefix}places.data": places, f"{prefix}tokens.data": torch.full_like(places, OWN)}


class OffsetDraft(Draft):
    """Offsets while they are learned, `[E, L, d]` in float32."""

    def __init__(self, offsets: Tensor, lengths: Tensor, owner: Tensor, rate: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.offsets = nn.Parameter(offsets)
        self.tokens = torch.full(offsets.shape[:2], OWN, device=offsets.device)
        self.lengths, self.owner, self.dtype = lengths, owner, dtype
        self.rate = rate[:, None, None]
        self.mean, self.square, self.count = torch.zeros_like(offsets), torch.zeros_like(offsets[..., :1]), 0

    def begin(self, targets: Sequence[Sequence[int]], offset_of: Callable[[Tensor], Tensor | None]) -> None:
        rows = [torch.tensor(target) for target in targets]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.offsets.device)
        if (offsets := offset_of(tokens)) is not None:
            self.tokens = tokens
            with torch.no_grad():
                self.offsets.copy_(offsets)

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        assert call.step is not None
        active = (call.step >= 0) & (call.step < self.lengths[self.owner][:, None])
        # Rounded as it will be stored, so that what is learned is what will be read.
        stored = self.offsets + (self.offsets.to(self.dtype).float() - self.offsets).detach()
        index = self.owner[:, None] * stored.shape[1] + torch.where(active, call.step, 0)
        return kernels.factored_delta(out, stored.flatten(0, 1), index, active)

    def only(self, rows: Tensor) -> bool:
        self.owner = self.owner[rows.to(self.owner.device)]
        return True

    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        (gradient,) = torch.autograd.grad(loss, self.offsets)
        self.count += 1
        with torch.no_grad():
            self.mean.lerp_(gradient, 0.2)
            # Adam with one second moment for each offset, so that steps keep the gradient's direction.
            self.square.lerp_(gradient.square().mean(-1, keepdim=True), 0.1)
            mean, square = self.mean / (1 - 0.8**self.count), self.square / (1 - 0.9**self.count)
            update = self.rate * mean / (square.sqrt() + 1e-12)
            unfinished = unfinished.to(update.device)
            self.offsets.sub_(torch.where(unfinished[:, None, None], update, 0))
            self.tokens = torch.where(unfinished[:, None], OWN, self.tokens)
