"""Train a memory encoder: the frozen host is to answer from the embeddings of items what it would not know."""

import dataclasses
import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from editmem.editing.writer import Writer
from editmem.editor import Editor, changes_of
from editmem.edits.edit import Edit, EncodedEdit, edit_of
from editmem.errors import EditMemError, InvalidEditError, SpecError
from editmem.hosts.fingerprint import fingerprint
from editmem.hosts.forward import IGNORED_LABEL
from editmem.hosts.modes import lasting
from editmem.methods.comem.memory import ComemMemory
from editmem.methods.comem.reading import MemoryStage, told
from editmem.methods.comem.rows import batch_with, standing_in

CLIP, WEIGHT_DECAY, WARM_UP = 3.0, 0.1, 0.03
"""Norm that gradients are clipped to; of AdamW; share of the steps in which the rate goes up (of the paper's code)."""
STATE = "training.safetensors"


@dataclass(frozen=True)
class Example:
    """A question that an item answers.

    Attributes:
        item: an `Item`, or a fact as an `Edit`.
        question: an `Edit`: the question, its picture if it has one, and the answer; it is not made.
    """

    item: Edit
    question: Edit


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        step: from 1.
        steps: of how many.
        loss: mean negative log-likelihood of the answers' tokens, in nats.
        seconds: since it began.
    """

    step: int
    steps: int
    loss: float
    seconds: float


@dataclass
class Encoded:
    """Examples as token ids, worked out once.

    Attributes:
        items: each different item, as `MemoryStage.ids`.
        questions: of each example.
        item: of each example, which item is its own.
        teachers: of each example the question with the item as text in front, where there is a share for them.
        distil: the share of the loss that is self-distillation.
    """

    items: list[tuple[Sequence[int], Any]] = field(default_factory=list)
    questions: list[EncodedEdit] = field(default_factory=list)
    item: list[int] = field(default_factory=list)
    teachers: list[EncodedEdit] = field(default_factory=list)
    distil: float = 0.0


@lasting
def train(
    editor: Editor,
    examples: Sequence[Example],
    *,
    steps: int,
    batch_size: int = 16,
    rate: float = 1e-3,
    distractors: float = 0.0,
    distil: float = 0.0,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda progress: None,
    checkpoint: str | Path | None = None,
    every: int = 200,
) -> list[float]:
    """Train the memory encoder of an editor with a "comem" memory on answers to questions (CoMEM, section 3.3).

    The loss is the cross-entropy of the answer's tokens; examples of one item are drawn together, and share its
    encoding. The host is frozen, and encodes with the adapter and reads without it. The passes are parted at the
    embeddings, so that blocks that run anew in a backward pass run as they did in the forward one.

    Args:
        editor: of the host; its memory holds nothing yet.
        examples: questions with the items that answer them.
        steps: optimiser steps (AdamW, cosine schedule).
        batch_size: examples in a step.
        rate: of AdamW at its highest (paper's code: 5e-5).
        distractors: share of the examples that get the item of another one behind their own.
        distil: share of the loss that is self-distillation: how far the answer's distribution is from what it is where
            the host reads the item as text in the prompt.
        seed: of order and distractors.
        progress: called after every step.
        checkpoint: a folder for what is needed to go on after an interruption; one that is there is gone on from.
        every: steps between checkpoints.

    Returns:
        The loss of each step, in nats.

    Raises:
        SpecError: if the memory is none of CoMEM.
        EditMemError: if it holds edits.
        InvalidEditError: if there are no examples, or one is too long for the model.
    """
    writer, memory, stage = parts_of(editor)
    if len(memory):
        raise EditMemError(f"the memory holds {len(memory)} rows that this encoder made; forget them, or wrap anew")
    encoded = encode(writer, stage, examples, distil)
    batches, start = _drawn(encoded.item, steps, batch_size, distractors, seed), time.perf_counter()
    with changes_of(editor).slots.gate.editing(), torch.enable_grad(), changes_of(editor).frozen(), _training(memory):
        loop = _Loop(memory, steps, rate, checkpoint)
        for step, (chosen, others) in enumerate(batches, 1):
            if step <= len(loop.losses):
                continue
            loop.advance(gradients(writer, memory, encoded, chosen, others))
            progress(Progress(step, steps, loop.losses[-1], time.perf_counter() - start))
            if step % every == 0 or step == steps:
                loop.save()
    memory.encoder.trained.fill_(True)
    return loop.losses


class _Loop:
    """An optimiser with its schedule, and what is needed to go on after an interruption."""

    def __init__(self, memory: ComemMemory, steps: int, rate: float, folder: str | Path | None) -> None:
        self.encoder, self.weights = memory.encoder, list(memory.encoder.parameters())
        self.optimiser = torch.optim.AdamW(self.weights, lr=rate, weight_decay=WEIGHT_DECAY)
        self.steps, self.rate, self.losses = steps, rate, list[float]()
        self.path = None if folder is None else Path(folder) / STATE
        if self.path is not None and self.path.is_file():
            self._resume(load_file(self.path))

    def advance(self, loss: float) -> None:
        """One step on the gradients that the weights have, which were those of `loss`."""
        nn.utils.clip_grad_norm_(self.weights, CLIP)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * _cosine(len(self.losses), self.steps, WARM_UP)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.losses.append(loss)

    def save(self) -> None:
        if self.path is None:
            return
        tensors = {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        for number, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": tensor for name, tensor in moments.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, new)
        new.replace(self.path)

    def _resume(self, tensors: dict[str, Tensor]) -> None:
        named = {name: tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
        self.encoder.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in named.items()})
        moments: dict[int, dict[str, Tensor]] = {}
        for name in tensors:
            if name.startswith("adam."):
                _, number, moment = name.split(".")
                moments.setdefault(int(number), {})[moment] = tensors[name]
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.losses = tensors["losses"].tolist()


def save(editor: Editor, folder: str | Path) -> None:
    """Write the memory encoder of an editor, for `ComemSpec.of(folder)`.

    Raises:
        SpecError: if the memory is none of CoMEM.
    """
    _, memory, _ = parts_of(editor)
    memory.encoder.save(folder, memory.spec.shape, fingerprint(changes_of(editor).host))


def read_examples(lines: Iterable[str], folder: Path) -> list[Example]:
    """Examples from JSON lines: an item's `text` and `image`, and `question`, `answer` and, if it has one,
    `question_image`; paths are relative to `folder`.

    Raises:
        InvalidEditError: naming the line that is wrong.
    """
    examples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            item = {name: record[name] for name in ("text", "image", "subject") if record.get(name) is not None}
            asked = {"prompt": record["question"], "target": record["answer"], "image": record.get("question_image")}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidEditError(f"line {number}: expected text, question and answer: {error!r}") from error
        for fields in (item, asked):
            if isinstance(fields.get("image"), str):
                fields["image"] = folder / fields["image"]
        examples.append(Example(edit_of(item, f"line {number}"), edit_of(asked, f"line {number}")))
    return examples


def parts_of(editor: Editor) -> tuple[Writer, ComemMemory, MemoryStage]:
    """Of the first memory that is one of CoMEM.

    Raises:
        SpecError: if there is none.
    """
    for writer in changes_of(editor).writers:
        if isinstance(memory := writer.memory, ComemMemory):
            return writer, memory, cast(MemoryStage, writer.stage)
    raise SpecError("this editor has no memory encoder; wrap the model with 'comem'")


def encode(writer: Writer, stage: MemoryStage, examples: Sequence[Example], distil: float = 0.0) -> Encoded:
    """Examples as token ids."""
    if not examples:
        raise InvalidEditError("an encoder is trained on questions and the items that answer them; none were given")
    encoded, known = Encoded(distil=distil), dict[str, int]()
    for example in examples:
        key = str(example.item.id)
        if key not in known:
            known[key] = len(encoded.items)
            encoded.items.append(stage.ids(example.item))
        encoded.item.append(known[key])
        encoded.questions.append(writer.encode.edit(example.question))
        if distil:
            encoded.teachers.append(writer.encode.edit(_with_text(example)))
    return encoded


def _with_text(example: Example) -> Edit:
    """The question with the item as text in front of it."""
    prompt, text = example.question.prompt, told(example.item)
    if isinstance(prompt, str):
        return dataclasses.replace(example.question, prompt=f"{text} {prompt}")
    *earlier, last = prompt
    return dataclasses.replace(example.question, prompt=[*earlier, {**last, "content": f"{text} {last['content']}"}])


def gradients(
    writer: Writer, memory: ComemMemory, encoded: Encoded, chosen: Sequence[int], others: Sequence[Sequence[int]]
) -> float:
    """Gradients of one batch; the loss.

    Args:
        chosen: which examples.
        others: of each the items that it gets, its own among them.
    """
    numbers = list(dict.fromkeys(number for row in others for number in row))
    with memory.encoder.adapter.on(writer.host.model):
        embeddings = embed(writer, memory, [encoded.items[number] for number in numbers])
        leaf = embeddings.detach().requires_grad_(True)
        with memory.encoder.adapter.off():
            rows = [[numbers.index(number) for number in row] for row in others]
            teachers = [encoded.teachers[i] for i in chosen] if encoded.teachers else []
            loss = answers(writer, memory, [encoded.questions[i] for i in chosen], rows, leaf, teachers, encoded.distil)
            loss.backward()
        embeddings.backward(leaf.grad)
    return loss.item()


def embed(writer: Writer, memory: ComemMemory, items: Sequence[tuple[Sequence[int], Any]]) -> Tensor:
    """`[n, k, d]`; those with a picture and those without in passes of their own."""
    rows: dict[int, Tensor] = {}
    for seeing in (False, True):
        own = [i for i, (_, vision) in enumerate(items) if bool(vision) == seeing]
        if own:
            batch = writer.batch([items[i][0] for i in own], [items[i][1] for i in own] if seeing else ())
            inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, **batch.vision}
            rows |= dict(zip(own, memory.encoder(writer.host, writer.context, inputs), strict=True))
    return torch.stack([rows[i] for i in range(len(items))])


def answers(
    writer: Writer,
    memory: ComemMemory,
    questions: Sequence[EncodedEdit],
    items: Sequence[Sequence[int]],
    embeddings: Tensor,
    teachers: Sequence[EncodedEdit] = (),
    distil: float = 0.0,
) -> Tensor:
    """Mean negative log-likelihood of the answers' tokens, with `embeddings` `[n, k, d]` of `items` in front.

    A share `distil` of it is, instead, how far the host's distribution at each token is from what it is with the items
    as text in the prompt, `teachers` (Kullback-Leibler divergence).
    """
    total, count = embeddings.new_zeros(()), 0
    for seeing in (False, True):
        own = [i for i, question in enumerate(questions) if bool(question.vision) == seeing]
        if not own:
            continue
        rows = [items[i] for i in own]
        batch = batch_with([questions[i] for i in own], rows, memory.bank.queries, writer)
        logits = writer.runner().logits(batch, {memory.words: standing_in(rows, embeddings)}).float()
        labels = batch.labels.flatten()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED_LABEL, reduction="sum")
        if teachers:
            read = batch_with([teachers[i] for i in own], [[] for _ in own], memory.bank.queries, writer)
            with torch.no_grad():
                wanted = writer.runner().logits(read, {}).float().log_softmax(-1)
            apart = nn.functional.kl_div(logits.log_softmax(-1), wanted, reduction="none", log_target=True).sum(-1)
            loss = (1 - distil) * loss + distil * apart.flatten()[labels != IGNORED_LABEL].sum()
        total, count = total + loss, count + int((labels != IGNORED_LABEL).sum())
    return total / count


@contextmanager
def _training(memory: ComemMemory) -> Iterator[None]:
    """Around the training of an encoder, which is as before if that fails."""
    before = {name: tensor.clone() for name, tensor in memory.encoder.state_dict().items()}
    memory.encoder.requires_grad_(True)
    try:
        yield
    except BaseException:
        memory.encoder.load_state_dict(before)
        raise
    finally:
        memory.encoder.requires_grad_(False)
        memory.encoder.zero_grad()


def _drawn(
    item: Sequence[int], steps: int, size: int, distractors: float, seed: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Batches of examples, those of one item together; and of each the items that it gets, its own first."""
    rng, order, groups = random.Random(seed), list[int](), dict[int, list[int]]()
    for example, own in enumerate(item):
        groups.setdefault(own, []).append(example)
    for _ in range(steps):
        while len(order) < size:
            order += [example for own in rng.sample(list(groups), len(groups)) for example in groups[own]]
        chosen, order = order[:size], order[size:]
        yield chosen, [[item[n], *([rng.choice(item)] if rng.random() < distractors else [])] for n in chosen]


def _cosine(step: int, steps: int, warm_up: float) -> float:
    first = max(1, round(steps * warm_up))
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * (step - first) / max(1, steps - first)))
