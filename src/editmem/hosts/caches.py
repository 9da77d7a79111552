"""Notes on KV caches: the text that a cache holds and what was decided on it, kept in step with the cache.

A cache outlives the forward that fills it, and its owner may crop it, empty it, or pick, repeat and reorder its rows.
The note is an attribute of the cache, so that it goes where the cache goes, into copies too; the cache's class is
swapped for a subclass of its own whose methods change the note with the rows and columns.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from editmem.hosts import compat
from editmem.hosts.decisions import Decisions
from editmem.hosts.disguise import Disguised, disguised
from editmem.hosts.forward import NO_TOKEN, PADDING, Call, untracked

_NOTE = "_editmem_note"


@dataclass(frozen=True)
class Composed:
    """That a prompt was read with more in it than was given.

    Attributes:
        added: how many columns more the cache has than the text as it was given.
        end: how many columns of the cache are the prompt with what was added.
    """

    added: int
    end: int


@dataclass(frozen=True)
class Note:
    """What a cache holds.

    Attributes:
        text: int64 `[B, S]`, `NO_TOKEN` where it is not known, `PADDING` on padding; None where nothing is known of it,
            as where forwards are compiled.
        decisions: what memories decided on it.
        composed: where more is in the text than was given.
    """

    text: Tensor | None
    decisions: Decisions
    composed: Composed | None = None

    def aligned(self, length: int | None) -> "Note | None":
        """The note on a cache of `length` columns; None where nothing is left of it."""
        if self.text is None or length is None or length == self.text.shape[1]:
            return self
        if length == 0:
            return None
        missing = length - self.text.shape[1]
        text = nn.functional.pad(self.text, (0, missing), value=NO_TOKEN) if missing > 0 else self.text[:, :length]
        return Note(text, self.decisions.cut(min(length, self.text.shape[1])), self.composed)

    def rows(self, change: Callable[[Tensor], Tensor]) -> "Note":
        """The note with its rows changed as those of the cache are."""
        return Note(None if self.text is None else change(self.text), self.decisions.rows(change), self.composed)


def note_on(cache: Any, rows: int) -> Note | None:
    """What is known of a cache with `rows` rows; None where nothing is."""
    note: Note | None = getattr(cache, _NOTE, None)
    if note is None or untracked():
        return note
    note = note.aligned(compat.cache_length(cache))
    changed_unseen = note is not None and note.text is not None and note.text.shape[0] != rows
    return None if changed_unseen else note


def text_in(cache: Any, note: Note | None, like: Tensor) -> Tensor | None:
    """The text in a cache, int64 `[B, S]`, `NO_TOKEN` where it is not known; None where it holds none.

    Args:
        cache: the cache, or None.
        note: what is known of it.
        like: of the rows and on the device that it is wanted for.
    """
    if note is not None or cache is None or untracked():
        return None if note is None else note.text
    length = compat.cache_length(cache) or 0
    shape = (like.shape[0], length)
    return torch.full(shape, NO_TOKEN, dtype=torch.long, device=like.device) if length else None


def leave(cache: Any, note: Note) -> None:
    """Put a note on a cache, and keep it in step from now on. What was added to its text stays there."""
    before: Note | None = getattr(cache, _NOTE, None)
    if before is not None and before.composed is not None:
        note = dataclasses.replace(note, composed=before.composed)
    setattr(cache, _NOTE, note)
    if not untracked() and not isinstance(cache, _Followed):
        cache.__class__ = _followed(cast(Any, type(cache)))


def note_after(call: Call) -> Note:
    """The note on a cache after a forward that filled it."""
    if untracked():
        return Note(None, call.decisions)
    tokens = torch.full_like(call.real, NO_TOKEN, dtype=torch.long) if call.tokens is None else call.tokens.long()
    text = torch.where(call.real, tokens, PADDING)
    return Note(text if call.before is None else torch.cat([call.before, text], 1), call.decisions)


def compose(cache: Any, composed: Composed) -> None:
    """Note on a cache that has a note that more is in its text than was given."""
    if (note := getattr(cache, _NOTE, None)) is not None:
        setattr(cache, _NOTE, dataclasses.replace(note, composed=composed))


class _Followed(Disguised):
    """The methods of a cache that change its rows and columns. Pickled, it is a cache as it was."""

    def _change(self, change: Callable[[Note], Note | None]) -> None:
        if (note := getattr(self, _NOTE, None)) is not None:
            setattr(self, _NOTE, change(note))

    def crop(self, *args: Any, **kwargs: Any) -> Any:
        note: Note | None = getattr(self, _NOTE, None)
        if note is not None and note.composed is not None and args and args[0] > 0:  # to a length, as it was given
            args = (args[0] + note.composed.added, *args[1:])
        result = super().crop(*args, **kwargs)  # type: ignore[misc]
        self._change(lambda note: note.aligned(compat.cache_length(self)))
        return result

    def reset(self, *args: Any, **kwargs: Any) -> Any:
        result = super().reset(*args, **kwargs)  # type: ignore[misc]
        self._change(lambda note: None)
        return result

    def reorder_cache(self, beam_idx: Tensor) -> Any:
        result = super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._change(lambda note: note.rows(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device))))
        return result

    def batch_select_indices(self, indices: Tensor) -> Any:
        result = super().batch_select_indices(indices)  # type: ignore[misc]
        self._change(lambda note: note.rows(lambda tensor: tensor[torch.as_tensor(indices).to(tensor.device)]))
        return result

    def batch_repeat_interleave(self, repeats: int) -> Any:
        result = super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        self._change(lambda note: note.rows(lambda tensor: tensor.repeat_interleave(repeats, dim=0)))
        return result

    def __reduce__(self) -> Any:
        state = {key: value for key, value in self.__dict__.items() if key != _NOTE}
        return _unpickled, (self._host_class, state)


def _unpickled(cls: Any, state: dict[str, Any]) -> Any:
    cache = cls.__new__(cls)
    cache.__dict__.update(state)
    return cache


@functools.cache
def _followed(cls: Any) -> type:
    return disguised(_Followed, cls)
