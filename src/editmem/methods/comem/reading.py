"""Read prompts before the host does: find items for them, and make places for their embeddings in front."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from editmem.editing.encoder import PICTURE
from editmem.editing.writer import Writer
from editmem.edits.edit import Edit, EncodedEdit
from editmem.errors import EditMemError
from editmem.lookup.stage import NEW, LookupStage, Row
from editmem.memory import Desk, Prompts
from editmem.methods.comem.refining import refined
from editmem.text.seams import join

if TYPE_CHECKING:  # the memory makes its stage
    from editmem.methods.comem.memory import ComemMemory


class MemoryStage(LookupStage):
    """Looks prompts up among the items, and encodes items.

    Args:
        memory: the memory.
        desk: what is around it.
    """

    def __init__(self, memory: "ComemMemory", desk: Desk) -> None:
        super().__init__(memory, desk)
        self.memory: ComemMemory = memory

    def find(
        self, ids: Tensor, real: Tensor, lengths: Tensor, vision: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], Prompts | None]:
        seen = self.desk.see({"input_ids": ids, "attention_mask": real.long(), **vision}, lengths)
        return self.memory.found(seen), None

    def row(self, tokens: Sequence[int], columns: Sequence[int], length: int, found: Mapping[str, Any], b: int) -> Row:
        places = sum(item >= 0 for item in found["items"]) * self.memory.bank.queries
        limit = self.desk.host.max_length
        if limit is not None and len(tokens) + places >= limit:
            raise EditMemError(
                f"a prompt of {len(tokens)} tokens with {places} embeddings in front of it is too long: the model "
                f"takes fewer than {limit}"
            )
        own = range(places, places + len(tokens))
        return Row([self.desk.pad] * places + list(tokens), [NEW] * places + list(columns), own)

    def keeping(self, edits: Sequence[EncodedEdit]) -> Callable[[], None]:
        keep_views = super().keeping(edits)
        if not self.memory.encoder.trained:
            raise EditMemError(
                "the memory encoder of this host has not been trained, so that items would say nothing: give one that "
                "was, ComemSpec(encoder=folder), or train it with `python -m editmem.methods.comem train`"
            )
        by_id: dict[str, list[EncodedEdit]] = {}
        for rendering in edits:
            by_id.setdefault(str(rendering.edit.id), []).append(rendering)
        vectors = torch.cat([self._written(renderings) for renderings in by_id.values()])
        numbers = {edit_id: number for number, edit_id in enumerate(by_id)}
        entries = torch.tensor([numbers[str(rendering.edit.id)] for rendering in edits])
        wholes = torch.tensor([rendering.edit.item for rendering in edits])

        def keep() -> None:
            keep_views()
            self.memory.bank.append(vectors, entries, wholes)

        return keep

    def _written(self, renderings: Sequence[EncodedEdit]) -> Tensor:
        """The embeddings of an edit as they are to be kept, `[1, k, d]`."""
        spec, embeddings = self.memory.spec, self.encode(renderings[0].edit)
        if renderings[0].edit.item or not spec.steps:
            return embeddings
        desk = cast(Writer, self.desk)
        return refined(desk, self.memory.words, renderings, embeddings, spec.steps, spec.learning_rate, spec.margin)

    @torch.no_grad()
    def encode(self, edit: Edit) -> Tensor:
        """The embeddings of an item, `[1, k, d]`; alone, so that they do not depend on what is encoded beside it."""
        ids, vision = self.ids(edit)
        tokens = torch.tensor([ids], device=self.desk.host.device)
        moved = {name: part.to(tokens.device) for name, part in vision.items()}
        inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), **moved}
        return self.memory.encoder(self.desk.host, self.desk.context, inputs)

    def ids(self, edit: Edit) -> tuple[Sequence[int], Mapping[str, Any]]:
        """Token ids of an item as it is encoded, and what the host takes to see its picture, if it has one."""
        encode, text = self.desk.encode, told(edit)
        return (encode.prompt(text), {}) if edit.image is None else encode.seen(text, edit.image)


def told(edit: Edit) -> str:
    """What an item says; of an edit, its prompt with the answer."""
    if edit.item:
        return edit.text.strip() or PICTURE
    return join(join(edit.text, edit.target, edit.join), ".")
