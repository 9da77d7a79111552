"""MemEIC's external memory (Mem-E): which edits a picture and a question ask for, one index for each modality."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from editmem.edits.edit import EncodedEdit
from editmem.lookup.pictures import PictureIndex
from editmem.memory import Calibration, Kept, Match, Prompts
from editmem.routing.name_router import NameRouter
from editmem.routing.question_router import QuestionRouter
from editmem.routing.sentence_encoder import SentenceEncoder
from editmem.state import Stored
from editmem.storage.table import Rows

TEXT, VISUAL = 0, 1
ENCODED = "encoded"
"""Stands for the path of a block, where states come from an encoder."""


@dataclass(frozen=True)
class Found:
    """What was found for each prompt of a batch, as rows of the memory, -1 for nothing.

    Attributes:
        visual: int64 `[B]`, the edit of its picture.
        asked: bool `[B]`, whether the prompt asks what that edit answers; if not, the picture is only recognised.
        textual: int64 `[B]`, the edit of the fact that it asks for.
    """

    visual: Tensor
    asked: Tensor
    textual: Tensor

    def decided(self) -> dict[str, Tensor]:
        """As `Decisions` carry it: with "acting", the edit that answers."""
        acting = torch.where(self.asked, self.visual, -1)
        return {
            "visual": self.visual,
            "textual": self.textual,
            "acting": torch.where(self.textual >= 0, self.textual, acting),
        }


class ExternalMemory(Stored):
    """Edits of both modalities, one row each, found by what is asked and by what is shown.

    Args:
        router: finds textual edits.
        pictures: finds visual ones; None for hosts that see nothing.
        encoder: makes the vectors that textual edits are compared by; None for the host's own states.

    Attributes:
        question_of: the question of a prompt, in words, from its token ids; set by whoever knows the tokenizer.
        kinds: `TEXT` or `VISUAL`, of each row.
    """

    def __init__(
        self, router: NameRouter | QuestionRouter, pictures: PictureIndex | None, encoder: SentenceEncoder | None = None
    ) -> None:
        super().__init__()
        self.router, self.pictures, self.encoder = router, pictures, encoder
        self.question_of: Callable[[Sequence[int]], str] | None = None
        self.kinds = Rows((), torch.long)

    def calibrate(self, neutral: Calibration) -> None:
        plain = [self._encoded(prompts) for prompts in neutral.neutral]
        hard = [self._encoded(prompts) for prompts in neutral.hard_negatives]
        self.router.calibrate(replace(neutral, neutral=plain, hard_negatives=hard))
        if self.pictures is not None and neutral.seen is not None:
            self.pictures.calibrate(neutral.seen)

    # Reading

    @property
    def has_textual(self) -> bool:
        return len(self.router) > 0

    def find(self, prompts: Prompts) -> Found:
        """The edits for a batch of prompts, from a pass through the bare host."""
        chat = self._chats(prompts)
        visual, asked = torch.full_like(chat, -1, dtype=torch.long), torch.zeros_like(chat)
        if self.pictures is not None:
            visual, asked = self.pictures.decide(prompts, chat)
        textual = torch.where(asked, -1, self._textual(prompts))
        return Found(self._rows(visual, VISUAL), asked, self._rows(textual, TEXT))

    def hopped(self, found: Found, rows: Tensor, prompts: Prompts) -> Found:
        """What was found, when the questions in `rows`, about a picture, have been put in words: `prompts`."""
        rows, textual = rows.to(found.textual.device), self._rows(self._textual(prompts), TEXT)
        textual = torch.where(textual >= 0, textual, found.textual[rows])
        return Found(found.visual, found.asked, found.textual.index_copy(0, rows, textual))

    def _chats(self, prompts: Prompts) -> Tensor:
        return self.router.turns.chats(prompts.call.text()[0])

    def _textual(self, prompts: Prompts) -> Tensor:
        if not self.has_textual:
            return torch.full_like(prompts.call.real[:, 0], -1, dtype=torch.long)
        return self.router.decide(prompts.x, self._encoded(prompts).call, {})

    def _encoded(self, prompts: Prompts) -> Prompts:
        """With what the encoder makes of each prompt in the place of the host's states."""
        call = prompts.call
        if self.encoder is None:
            return prompts
        assert call.tokens is not None
        assert call.step is not None
        assert self.question_of is not None
        asked = (call.step <= 0) & call.real
        texts = [self.question_of(row[own].tolist()) for row, own in zip(call.tokens, asked, strict=True)]
        states = self.encoder(texts).to(call.real.device)[:, None].expand(-1, call.real.shape[1], -1)
        return replace(prompts, call=replace(call, noted={**call.noted, ENCODED: states}))

    def _rows(self, entries: Tensor, kind: int) -> Tensor:
        """Rows of the memory, of entries among those of one kind; -1 stays."""
        rows = (self.kinds.used == kind).nonzero().squeeze(1)
        if not len(rows):
            return entries
        return torch.where(entries >= 0, rows[entries.clamp(min=0)], -1)

    def match(self, prompts: Prompts, top: int) -> list[list[Match]]:
        chat = self._chats(prompts)
        found = [[] for _ in prompts.x] if not self.has_textual else self.router.rank(self._encoded(prompts), top)
        ranked = [self._named(matches, TEXT) for matches in found]
        if self.pictures is not None:
            seen = self.pictures.rank(prompts, chat, top)
            ranked = [self._named(s, VISUAL) + r for s, r in zip(seen, ranked, strict=True)]
        return [sorted(matches, key=lambda m: m.threshold - m.score)[:top] for matches in ranked]

    def _named(self, matches: Sequence[Match], kind: int) -> list[Match]:
        entries = torch.tensor([m.row for m in matches], dtype=torch.long, device=self.kinds.data.device)
        rows = self._rows(entries, kind).tolist()
        return [Match(row, m.score, m.threshold, m.parts) for row, m in zip(rows, matches, strict=True)]

    # Writing

    def append(self, prompts: Prompts, edits: Sequence[EncodedEdit]) -> list[Kept]:
        """Add edits of one kind, whose prompts are the first of `prompts`."""
        kind = kind_of(edits)
        self.kinds.append(torch.full((len(edits),), kind))
        if kind == TEXT:
            kept = self.router.append(self._encoded(prompts), edits)
            return [Kept(self._named(k.alike, TEXT), k.false_match_rate) for k in kept]
        assert self.pictures is not None
        self.pictures.append(prompts, edits, self._chats(prompts))
        return [Kept() for _ in edits]

    def rekey(self, rows: Sequence[int], edits: Sequence[EncodedEdit]) -> None:
        """As `Memory.rekey`, of textual edits."""
        textual = (self.kinds.used == TEXT).nonzero().squeeze(1).tolist()
        self.router.rekey([textual.index(row) for row in rows], edits)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these (int64, ascending)."""
        for kind, store in ((TEXT, self.router), (VISUAL, self.pictures)):
            of_kind = (self.kinds.used == kind).nonzero().squeeze(1)
            if store is not None and len(of_kind):
                store.keep(torch.isin(of_kind, rows).nonzero().squeeze(1))
        self.kinds.keep(rows)

    # Keeping

    def restored(self) -> None:
        textual, visual = (int((self.kinds.used == kind).sum()) for kind in (TEXT, VISUAL))
        pictures = 0 if self.pictures is None else len(self.pictures)
        if (len(self.router), pictures) != (textual, visual):
            raise ValueError("kinds, pictures and router keys differ in their number of edits")


def kind_of(edits: Sequence[EncodedEdit]) -> int:
    """The kind of edits that are all of one."""
    return VISUAL if edits[0].vision else TEXT
