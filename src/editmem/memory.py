"""The contract of a memory. Read this first; a new memory is one file that fulfils it and one line in METHODS.

A memory sits on one site of the host. In every forward pass it gets what went into the site, what came
out, and the `Call`; it returns the output to use. It holds edits as rows, in the order of writing.
"""

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from editmem.edits.edit import Edit, EncodedEdit
from editmem.errors import SpecError
from editmem.hosts.forward import Call, Context
from editmem.hosts.staged import StagedPrompts
from editmem.hosts.structure import Host, SiteInfo
from editmem.state import Patterns, Stored, renamed, restore
from editmem.storage.snapshots import Restore, snapshot
from editmem.storage.targets import Targets
from editmem.text.vocabulary import Vocabulary

FORMER_FIELDS = {"rate": "learning_rate", "decay": "weight_decay", "contexts": "context_templates"}
"""Fields of specs by the names that they had before 0.2."""


class _Named(type):
    """Makes specs: fields that had another name may still be given by it."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        for former in set(fields) & set(FORMER_FIELDS):
            message = f"{cls.__name__}: {former!r} is {FORMER_FIELDS[former]!r} now"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            fields[FORMER_FIELDS[former]] = fields.pop(former)
        return super().__call__(*args, **fields)


@dataclass(frozen=True)
class Spec(metaclass=_Named):
    """What kind of memory to make and with which settings; plain data, so that it can be saved.

    Attributes:
        layer: the block whose feed-forward output carries the memory: an index (negative from the end) or
            a fraction of the depth (0.0 first, 1.0 last).
        module: the exact name of the module to sit on, or `re:` and a regular expression; overrides `layer`.
    """

    method: ClassVar[str]

    layer: int | float = -1
    module: str | None = None

    @property
    def renderings(self) -> bool:
        """Whether an edit is written for plain text and for a user's turn of a chat, whichever way it is given."""
        return False

    @property
    def context_templates(self) -> int:
        """Behind how many context templates, short prefixes of other text, an edit is learned too."""
        return 0

    @property
    def steps(self) -> int:
        """Most optimiser steps for an edit."""
        return 0

    @property
    def margin(self) -> float:
        """An edit is learned when each target token beats all others together by this many nats."""
        return 0.0

    def joined(self, other: "Spec") -> "Spec | None":
        """One spec for what both make together, where they are parts of one memory; None where they are not.

        Raises:
            SpecError: if they cannot be told apart.
        """
        return None

    def build(self, site: SiteInfo, dtype: torch.dtype, device: torch.device) -> "Memory":
        """An empty memory for this site."""
        raise NotImplementedError

    def build_on(self, host: Host, dtype: torch.dtype) -> "tuple[SiteInfo, Memory]":
        """An empty memory for this host and its (lowest) site.

        Raises:
            HostError: if the host has no such site.
        """
        site = host.site(self.layer, self.module)
        return site, self.build(site, dtype, host.device)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the method's name, as JSON can hold them."""
        return {"method": self.method, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; fields that are missing get their defaults.

        Raises:
            SpecError: for an unknown field or a value out of range.
        """
        fields = {name: value for name, value in data.items() if name != "method"}
        fields = {FORMER_FIELDS.get(name, name): value for name, value in fields.items()}
        known = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise SpecError(f"{cls.__name__} has no field {name!r}; it has {', '.join(known)}")
        return cls(**fields)


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts at a site, as a memory sees them when it writes, calibrates or explains.

    Attributes:
        x: `[B, T, D]`, what went into the site.
        out: `[B, T, d]`, what came out of it, without any memory.
        call: the forward that they come from, with known boundaries.
    """

    x: Tensor
    out: Tensor
    call: Call


@dataclass(frozen=True)
class Seen:
    """What a host makes of built-in pictures.

    Attributes:
        views: a prompt with each of several pictures in several views, all views of the first picture first.
        pictures: how many pictures these are.
        asked: the same questions asked about several pictures, all of the first picture's first; as plain text and, if
            there is a chat template, as a user's turn.
        pictures_asked: how many pictures these are.
    """

    views: Prompts
    pictures: int
    asked: Sequence[Prompts]
    pictures_asked: int


@dataclass(frozen=True)
class Calibration:
    """What a memory learns about its host before the first edit.

    Attributes:
        neutral: prompts about nothing in particular: as plain text and, if the tokenizer has a chat template, as
            a user's turn.
        hard_negatives: prompts that put the same questions to several names, all of the first name's first; rendered
            likewise.
        names: how many names.
        vocabulary: of its tokenizer.
        seen: for memories that see: built-in pictures; None where there is no processor.
    """

    neutral: Sequence[Prompts]
    hard_negatives: Sequence[Prompts]
    names: int
    vocabulary: Vocabulary
    seen: Seen | None = None


@dataclass(frozen=True)
class Match:
    """What a memory found for one prompt.

    Attributes:
        row: the row of the edit, 0 for the first one written.
        score: how well it fits; what the score is, the memory's page says.
        threshold: the score from which the edit acts.
        parts: what the score is made of, where it has parts.
    """

    row: int
    score: float
    threshold: float
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """What a memory knows of an edit that it has just kept.

    Attributes:
        alike: other edits that the edit's own prompt would match too.
        false_match_rate: estimated share of other questions about the same name that would match it; None
            where the memory has no estimate.
    """

    alike: Sequence[Match] = ()
    false_match_rate: float | None = None


class Draft(nn.Module, ABC):
    """Edits while they are being learned: stands in for the memory at its site, with parameters to optimise.

    In a forward pass of the draft, row `b` of the batch belongs to edit `owner[b]` of the drafted ones.

    Attributes:
        begins: whether what is learned are offsets of the site's output, which may begin elsewhere than at nothing.
    """

    begins: bool = False

    @abstractmethod
    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        """The site's output with the drafted edits applied to their own rows."""

    def places(self, path: str) -> "Mapping[str, Callable[[Tensor, Tensor, Call], Tensor]]":
        """What stands in at which module, where the memory's site is `path`."""
        return {path: self}

    @abstractmethod
    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        """One optimiser step on a loss; edits that are not `unfinished` (bool `[E]`) stay as they are."""

    def begin(self, targets: Sequence[Sequence[int]], offset_of: Callable[[Tensor], Tensor | None]) -> None:
        """Begin with the offsets with which the host's head says the edits' targets; for drafts that `begins`.

        Args:
            targets: token ids of each edit's.
            offset_of: offsets `[..., d]` for token ids `[...]`, or None; see `editing.token_directions`.
        """

    def settled(self) -> bool:
        """Whether there is nothing to learn but the edits' answers."""
        return True

    def only(self, rows: Tensor) -> bool:
        """Expect these rows alone (int64 `[n]`, of the last forward's) in later ones; edits without a row are learned.

        Returns:
            False, with nothing changed, where edits are learned in what they share.
        """
        return False


class Memory(Stored, ABC):
    """Edits at one site of the host.

    Attributes:
        spec: the settings that it was built with.
        key: under which it keeps its part of `Call.decisions`; unique on a host.
        targets: the answers of its edits, a row for each.
        calibrated: whether `calibrate` has been called, or its outcome loaded.
        replays: whether edits are learned in weights that they share, one by one; see `dependents`.
        pictured: whether edits may have pictures.
        keeps_items: whether edits may be items; see `Item`.
        decides: of what it keeps in `Call.decisions` the names of rows that were decided on, -1 for none.
        version: int64, raised where rows move, so that what was decided before is not taken for now.
    """

    spec: Spec
    key: str = ""
    targets: Targets
    calibrated: bool = False
    replays: bool = False
    pictured: bool = False
    keeps_items: bool = False
    decides: ClassVar[tuple[str, ...]] = ("edit", "ended")
    version: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("version", torch.zeros((), dtype=torch.long), persistent=False)

    def __len__(self) -> int:
        """How many edits it holds."""
        return len(self.targets)

    def hosted(self) -> "Sequence[Tensor]":
        """Those of its buffers that are in the host's dtype, and follow it where the host is moved to another."""
        return []

    def moving(self, fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """What `fn`, which moves the host, does to the memory's state: all but `hosted` keeps its dtype.

        Thresholds, keys and tables mean what they mean in their own precision, whatever the host's.
        """
        following = {id(tensor) for tensor in self.hosted()}
        return lambda tensor: fn(tensor) if id(tensor) in following else _as_bits(fn, tensor)

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        return super()._apply(self.moving(fn), recurse)

    @property
    def window(self) -> int:
        """How many tokens after a prompt's end it may act on: the longest target it holds, rounded up."""
        return self.targets.window

    def begun(self, tail: Tensor) -> Tensor:
        """Which endings of texts may be the beginning of an answer that it holds; see `Targets.begun`."""
        return self.targets.begun(tail)

    @abstractmethod
    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        """The output to use.

        Args:
            x: `[B, T, D]`, what went into the site.
            out: `[B, T, d]`, what came out, in the host's dtype.
            call: what is known about this forward pass.

        Returns:
            `[B, T, d]`; rows that match nothing are `out` bit for bit.
        """

    @abstractmethod
    def calibrate(self, neutral: Calibration) -> None:
        """Fix, before the first edit, what depends on the host, its tokenizer, and prompts that are not edits."""

    @property
    def calibrated_by(self) -> Collection[str]:
        """What calibrating it takes, as the host reads it: built-in "prompts", and "pictures" where it can see."""
        return {"prompts"}

    @property
    def by_words(self) -> bool:
        """Whether `match` goes by the tokens of prompts alone, so that the host need not read them."""
        return False

    def read_back(self, text_of: Callable[[Sequence[int]], str]) -> None:
        """Take what says the text of token ids, for memories that compare text."""

    def hear(self, vocabulary: Vocabulary) -> None:
        """Go by this vocabulary from now on: tokens were added to it."""

    def prompt_stage(self, desk: "Desk") -> "PromptStage | None":
        """What rewrites prompts before the host reads them; None where edits are found in the forward pass."""
        return None

    def sees(self, host: bool) -> bool:
        """Whether it can tell pictures apart, where the host has tokens for them in its prompts, or not (`host`)."""
        return host

    @abstractmethod
    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        """Begin to write edits.

        Args:
            edits: what to write, E of them.
            prompts: the rows that they are learned from, B of them; the first E are the plain prompts.
            owner: int64 `[B]`, which edit each row belongs to.
        """

    @abstractmethod
    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> list[Kept]:
        """Keep drafted edits."""

    def dependents(self, rows: Sequence[int]) -> list[list[int]]:
        """Groups of rows, these among them, of which the others are to be written anew where these are erased.

        A group is erased whole, and what is left of it is learned again, in order, inside `rewriting`.
        """
        return []

    def places(self, path: str) -> "Mapping[str, Callable[[Tensor, Tensor, Call], Tensor]]":
        """What runs on the output of which module, where the memory's site is `path`."""
        return {path: self}

    def blocks(self, block_path: str) -> Sequence[str]:
        """The blocks of which the memory reads what goes in, where that of its site is `block_path`."""
        return [block_path]

    def notes(self) -> Sequence[str]:
        """Further modules of which the memory reads what comes out, such as a vision tower."""
        return []

    def rewriting(self, rows: Sequence[int]) -> AbstractContextManager[None]:
        """Around the erasing of a group of `dependents` and the writing of what is left of it."""
        return nullcontext()

    @abstractmethod
    def erase(self, rows: Sequence[int]) -> None:
        """Drop the edits in these rows; the rows after them move up."""

    def bury(self, rows: Sequence[int]) -> bool:
        """Have the edits in these rows act no more, and be found no more, at a cost that hardly grows with the others.

        The rows stay, and no row moves; `erase` is called with them when they have become many, and before saving.

        Returns:
            False, with nothing changed, where only `erase` can do that.
        """
        return False

    @property
    def rekeys(self) -> bool:
        """Whether its edits can go by other `phrasings` and `unlike` without being learned again."""
        return False

    def rekey(self, rows: Sequence[int], edits: Sequence[EncodedEdit]) -> None:
        """Have the edits in these rows go by the questions that come with them now, where it `rekeys`."""
        raise NotImplementedError

    def moved(self) -> None:
        """Rows have moved: what was decided, and is carried with a cache, holds no longer."""
        self.version = self.version + 1

    def current(self, carried: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was carried from earlier forwards, without decisions that were made before rows moved."""
        if "version" not in carried:
            return carried
        holds = carried["version"] == self.version
        held = {name: holds.view(-1, *[1] * (carried[name].ndim - 1)) for name in self.decides if name in carried}
        decided = {name: torch.where(still, carried[name], -1) for name, still in held.items()}
        return {**carried, **decided}

    def stamped(self, carried: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is to be carried, decisions with the version of the rows that they name."""
        decided = next((carried[name] for name in self.decides if name in carried), None)
        return carried if decided is None else {**carried, "version": self.version.expand(decided.shape[0])}

    def snapshot(self) -> Restore:
        """What puts the memory back into its present state, bit for bit; see `snapshots`. Of several the last one."""
        back = snapshot(self)

        def undo() -> None:
            version = self.version
            back()
            self.version = version + 1  # nothing that was decided in between holds

        return undo

    @abstractmethod
    def match(self, prompts: Prompts, top: int) -> list[list[Match]]:
        """For each prompt the `top` nearest edits, best first, whether or not they reach the threshold."""

    FORMER: ClassVar[Patterns] = ()
    """Names that its tensors had in format 1; see `state.FORMER`."""

    def upgraded(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A saved `state_dict`, also one of an earlier version, as this one has it."""
        return renamed(tensors, self.state_dict(), self.FORMER)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave, here or in an earlier version.

        Raises:
            ValueError: if a tensor is missing, unknown or of the wrong shape.
        """
        restore(self, self.upgraded(tensors))
        self.calibrated = True


class Desk(Protocol):
    """What a prompt stage may use of what is around its memory."""

    host: Host
    context: Context

    @property
    def encode(self) -> Any: ...
    @property
    def pad(self) -> int: ...
    def see(self, inputs: Mapping[str, Any], lengths: Tensor) -> Prompts: ...
    def read(self, prompts: Sequence[Sequence[int]], vision: Sequence[Mapping[str, Any]] = ()) -> Prompts: ...
    def edit_of(self, row: int) -> Edit: ...


@dataclass(frozen=True)
class Staged:
    """What a prompt stage found for one prompt.

    Attributes:
        acting: the row of the edit that answers, -1 for none.
        recognised: the row of the edit that is only recognised, such as that of the picture; -1 for none.
        matches: what else was compared on the way.
    """

    acting: int = -1
    recognised: int = -1
    matches: Sequence[Match] = ()


class PromptStage(ABC):
    """Looks prompts up in a memory, and rewrites them, before the host reads them.

    Attributes:
        options: what users may say about how prompts are read; see `Editor.reading`.
    """

    options: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def read(self, inputs: Mapping[str, Any], lengths: Tensor | None, generating: bool) -> StagedPrompts | None:
        """What the host is to read in place of a batch of prompts.

        Args:
            inputs: what the host (or its `generate`) was called with, by name.
            lengths: int64 `[B]`, tokens of each row's prompt; None to go by `labels`, or take all for prompt.
            generating: whether it was `generate`, which gets the whole text even where there is a cache.

        Returns:
            None where there is nothing to change, and nothing was decided.
        """

    @abstractmethod
    def explain(self, inputs: Mapping[str, Any], lengths: Tensor, top: int) -> Staged:
        """What it finds for a batch of one."""

    def learned(self, edit: EncodedEdit) -> EncodedEdit:
        """The edit as it is to be learned."""
        return edit

    def keeping(self, edits: Sequence[EncodedEdit]) -> Callable[[], None]:
        """Prepare what is to happen at the moment at which the memory keeps these edits, after its `commit`."""
        return lambda: None


def _as_bits(fn: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """Apply `fn` to the bits of a tensor: it may go elsewhere, and stays the same numbers."""
    if not tensor.is_floating_point():
        return fn(tensor)
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return fn(tensor.detach().view(whole)).view(tensor.dtype)
