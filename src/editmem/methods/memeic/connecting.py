"""Train a knowledge connector (MemEIC, stage 2): on compositional questions with evidence that may be wrong."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from editmem.editing.batches import batch_of
from editmem.editing.writer import Writer
from editmem.editor import Editor, changes_of
from editmem.edits.edit import Edit, EncodedEdit
from editmem.errors import EditMemError, SpecError
from editmem.hosts.decisions import Decisions
from editmem.hosts.modes import lasting
from editmem.methods.memeic.connector import KnowledgeConnector
from editmem.methods.memeic.memory import MemeicMemory
from editmem.methods.memeic.reading import EvidenceStage


@dataclass(frozen=True)
class Composition:
    """A question that needs two edits.

    Attributes:
        question: the prompt, its picture and the answer, as an edit that is not made.
        visual, textual: ids of the active edits that it needs.
    """

    question: Edit
    visual: str
    textual: str


def tiny_connector() -> Path:
    """The folder of the connector for `editmem.tiny(vision=True)`, for `interop.load(editor, folder, "connector")`.

    It was trained by `python -m benchmarks connector`, for `MemeicSpec(connector=True, evidence="paper", both="all")`.
    """
    return Path(str(resources.files(__package__) / "tiny_connector"))


@lasting
def train(
    editor: Editor,
    compositions: Sequence[Composition],
    *,
    right: float = 0.84,
    passes: int = 3,
    rate: float = 2e-5,
    batch_size: int = 8,
    seed: int = 0,
) -> list[float]:
    """Train the connector of an editor whose memory holds the edits that the questions need.

    For each question and modality the edit found is the right one with probability `right`, else any other's: evidence
    and adapters are then that one's. Nothing but the connector changes. It is saved with the memory; `interop` keeps it
    alone.

    Args:
        editor: of a memory with `connector=True`.
        compositions: what to train on.
        right: 0.84 for LLaVA-1.5 and 0.70 for MiniGPT-4 in the paper.
        passes: over all questions; the paper takes 3 steps on each of 494.
        rate: of AdamW.
        batch_size: questions in a step.
        seed: of their order, and of what is wrong.

    Returns:
        The mean loss of each step, in nats.

    Raises:
        SpecError: if the memory has no connector.
        EditMemError: if an edit is not active, or there are no questions.
    """
    connector, writer, memory = _parts(editor)
    changes = changes_of(editor)
    if not compositions:
        raise EditMemError("a connector is trained on compositional questions; none were given")
    rows = [(_row(writer, c.visual), _row(writer, c.textual)) for c in compositions]
    items = [writer.encode.edit(c.question) for c in compositions]
    weights = list(connector.parameters())
    optimiser = torch.optim.AdamW(weights, lr=rate)
    losses: list[float] = []
    with changes.slots.gate.editing(), torch.enable_grad(), changes.frozen(), _trainable(connector):
        for chosen, found in _drawn(rows, passes, batch_size, right, seed):
            loss = _loss(writer, memory, [items[i] for i in chosen], found)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimiser.step()
            losses.append(loss.item())
    return losses


@contextmanager
def _trainable(connector: KnowledgeConnector) -> Iterator[None]:
    """Around the training of a connector: it acts, and is as before if that fails."""
    weights = list(connector.parameters())
    trained, before = connector.trained, [weight.detach().clone() for weight in weights]
    connector.trained = True
    for weight in weights:
        weight.requires_grad_(True)
    try:
        yield
    except BaseException:
        connector.trained = trained
        for weight, was in zip(weights, before, strict=True):
            weight.data = was
        raise
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def _parts(editor: Editor) -> tuple[KnowledgeConnector, Writer, MemeicMemory]:
    for writer in changes_of(editor).writers:
        if isinstance(memory := writer.memory, MemeicMemory) and memory.connector is not None:
            return memory.connector, writer, memory
    raise SpecError("this memory has no connector; wrap the model with MemeicSpec(connector=True)")


def _row(writer: Writer, edit_id: str) -> int:
    rows = writer.active.rows_of([edit_id])
    if not rows:
        raise EditMemError(f"no active edit has the id {edit_id!r}; write the edits first, then train the connector")
    return rows[0]


def _drawn(
    rows: Sequence[tuple[int, int]], passes: int, size: int, right: float, seed: int
) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Numbers of questions, and the rows of the edits that are found for them."""
    rng = random.Random(seed)
    for _ in range(passes):
        order = rng.sample(range(len(rows)), len(rows))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield chosen, [(_one(0, i, rows, right, rng), _one(1, i, rows, right, rng)) for i in chosen]


def _one(kind: int, number: int, rows: Sequence[tuple[int, int]], right: float, rng: random.Random) -> int:
    return rows[number][kind] if rng.random() < right else rng.choice(rows)[kind]


def _loss(
    writer: Writer, memory: MemeicMemory, items: Sequence[EncodedEdit], found: Sequence[tuple[int, int]]
) -> Tensor:
    """Mean negative log-likelihood of the answers' tokens."""
    stage = cast(EvidenceStage, writer.stage)
    composed = [stage.with_found(item, *rows) for item, rows in zip(items, found, strict=True)]
    batch = batch_of(composed, [], writer.pad, writer.host.device)
    visual, textual = (torch.tensor(column, device=batch.ids.device) for column in zip(*found, strict=True))
    decisions = Decisions({memory.key: {"visual": visual, "textual": textual, "acting": textual}})
    logits = writer.runner().decided(batch, decisions)
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), batch.labels.flatten())
