"""A batch of prompts as it was rewritten before the host reads it, and how to hand back what was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from editmem.hosts import caches, compat
from editmem.hosts.decisions import Decisions


@dataclass(frozen=True)
class StagedPrompts:
    """What came of rewriting a batch.

    Attributes:
        inputs: what the host is to be called with.
        lengths: int64 `[B]`, tokens of each row's prompt, what was added included; None for more of a cached text.
        decisions: what was decided on its rows.
        place: int64 `[B, T]`, where the columns that were given are now; None where nothing was put in.
        keep: how many logits were asked for; 0 for all.
    """

    inputs: dict[str, Any]
    lengths: Tensor | None
    decisions: Decisions = field(default_factory=Decisions)
    place: Tensor | None = None
    keep: int = 0

    def generating(self, model: Any) -> dict[str, Any]:
        """The arguments for `generate` of the model."""
        added = 0 if self.place is None else self.inputs["input_ids"].shape[1] - self.place.shape[1]
        return compat.longer(model, self.inputs, added) if added else dict(self.inputs)

    def leave(self, cache: Any) -> None:
        """Note on the cache that `generate` or a forward filled that more is in its text than was given."""
        if cache is not None and self.place is not None:
            columns = self.inputs["input_ids"].shape[1]
            caches.compose(cache, caches.Composed(columns - self.place.shape[1], columns))

    def restore(self, out: Any) -> Any:
        """The host's output with logits for the columns that were given; at a prompt's own, those of its new text."""
        if self.place is None:
            return out
        self.leave(compat.cache_of(out))
        place = self.place.to(out.logits.device)
        out.logits = out.logits.gather(1, place[..., None].expand(-1, -1, out.logits.shape[-1]))[:, -self.keep :]
        return out


class RewritesPrompts(Protocol):
    """What the host's entries ask of a prompt stage; see `memory.PromptStage`."""

    def read(self, inputs: Mapping[str, Any], lengths: Tensor | None, generating: bool) -> StagedPrompts | None: ...
