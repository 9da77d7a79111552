"""The closed-form editors that learn values, ROME, EMMET, MEMIT and AlphaEdit: one solver, a line of settings each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.baselines.corpus import corpus, text_batches
from benchmarks.baselines.encoding import Batch, Row, encode
from benchmarks.baselines.options import settings
from benchmarks.baselines.sites import Site, inputs, outputs, passes_on, pick
from benchmarks.baselines.solver import null_space, solve, solve_within
from benchmarks.baselines.values import Owners, ValueSettings, learn_offsets
from benchmarks.baselines.weights import JointEdits, WeightEdits
from benchmarks.records import Record

ESSENCE = "{} is a"  # what must not change about a subject, as ROME asks it
PREFIX_WORDS = 8
TOGETHER = 64  # rows of a forward


@dataclass(frozen=True)
class ClosedFormSettings(ValueSettings):
    """What tells the editors apart, and how each is run; how values are learned is in `ValueSettings`.

    Attributes:
        equality: whether new outputs are a constraint (ROME, EMMET) or a term of least squares.
        moment: weight of E[k kᵀ] of neutral text; MEMIT's λ.
        ridge: weight of the identity, in units of the mean eigenvalue of E[k kᵀ].
        null: changes keep to directions with eigenvalues below this, in the same units (AlphaEdit); 0 for all.
        remember: whether the keys of earlier edits are preserved too (AlphaEdit).
        batch: edits that are solved for together.
        layers: numbers of the blocks; none for `span` blocks, the highest of them at `depth`, a share of all.
        depth, span: see `layers`.
        prefixes: how many neutral texts stand in front of a prompt in turn, beside none; keys are the mean. Small
            hosts are not used to text in front, and do better with none.
        corpus: neutral texts; see `corpus`.
    """

    equality: bool = False
    moment: float = 1.0
    ridge: float = 0.01
    null: float = 0.0
    remember: bool = False
    batch: int = 32
    layers: tuple[int, ...] = ()
    depth: float = 0.0
    span: int = 1
    prefixes: int = 0
    corpus: Any = None


class ClosedForm(WeightEdits):
    """Weights of one or more down-projections changed so that keys give learned values.

    Keys are the sites' inputs at the subject's last token; where a subject is unknown, at the prompt's. What the
    highest block is to put out there, z, is learned (`learn_offsets`). From the lowest block on, what is still
    missing of z is spread evenly over the blocks that are left (MEMIT, arXiv 2210.07229, section 4.3 and algorithm
    1; 2403.14236 has ROME and EMMET so, too). Later edits start from the weights as they are then. Where a norm stands
    between the map and what its block puts out (Gemma), z is what the map puts out, and the highest alone is changed.
    """

    defaults: ClassVar[ClosedFormSettings]

    def __init__(self, model: Any, tokenizer: Any, options: Mapping[str, Any], seed: int) -> None:
        self.settings = s = settings(self.name, self.defaults, options)
        super().__init__(pick(self.name, model, s.layers, s.depth, s.span), model, tokenizer, options, seed)
        self.measured = self.sites[-1].block
        self.moments: dict[str, Tensor] = {}
        self.known: dict[str, Tensor] = {}
        self.together = s.batch

    def prepare(self) -> None:
        """Take E[k kᵀ] of each site from neutral text, and what follows from it."""
        texts = corpus(self.model, self.tokenizer, self.settings.corpus, self.seed)
        self.fronts = ["", *(" ".join(text.split()[:PREFIX_WORDS]) + " " for text in texts[: self.settings.prefixes])]
        batches = text_batches(self.tokenizer, texts, self.model.device)
        top = self.sites[-1]
        if not passes_on(self.model, top, next(text_batches(self.tokenizer, texts[:1], self.model.device))):
            self.sites, self.measured = [top], top.module
        self.moments = second_moments(self.model, self.sites, batches)
        self.units = {path: float(m.diagonal().mean()) for path, m in self.moments.items()}
        if self.settings.null:
            self.bases = {path: null_space(m, self.settings.null) for path, m in self.moments.items()}

    def learn(self, records: Sequence[Record]) -> None:
        self.spread(records, self.goals(records))

    def goals(self, records: Sequence[Record]) -> Tensor:
        """z of each edit, `[E, D]`, learned with the weights as they are."""
        rows, owners = self._rendered(records)
        now = self._outputs(records)
        return now + learn_offsets(self.model, self.sites[-1], self.batch(rows), owners, now, self.settings)

    def spread(self, records: Sequence[Record], goals: Tensor) -> None:
        """Change the sites, the lowest first, until the highest puts out z."""
        for number, site in enumerate(self.sites):
            missing = (goals - self._outputs(records)) / (len(self.sites) - number)
            self._change(site, self._keys(site, records).T, missing.T)

    def _rendered(self, records: Sequence[Record]) -> tuple[list[Row], Owners]:
        """Each edit behind each prefix, prefix by prefix, then the questions about the subjects."""
        rows = [encode(self.tokenizer, front + r.prompt, r.target, r.subject) for front in self.fronts for r in records]
        edits = list(range(len(records))) * len(self.fronts)
        for i, record in enumerate(records):
            if record.subject is not None:
                rows.append(encode(self.tokenizer, ESSENCE.format(record.subject), "", record.subject))
                edits.append(i)
        return rows, Owners(torch.tensor(edits, device=self.model.device), len(records))

    def _outputs(self, records: Sequence[Record]) -> Tensor:
        """`[E, D]`: what the highest site is measured at puts out at the subjects, behind no prefix."""
        return self._at_subjects(records, "", lambda asked: outputs(self.model, [self.measured], asked)[0])

    def _keys(self, site: Site, records: Sequence[Record]) -> Tensor:
        """`[E, D_in]`, the mean over the prefixes."""
        read = partial(inputs, self.model, [site.module])
        every = [self._at_subjects(records, front, lambda asked: read(asked)[0]) for front in self.fronts]
        return torch.stack(every).mean(0)

    def _at_subjects(
        self, records: Sequence[Record], front: str, read: Callable[[dict[str, Tensor]], Tensor]
    ) -> Tensor:
        """What is read `[B, L, D]`, at the subjects of edits behind a prefix."""
        rows = [encode(self.tokenizer, front + r.prompt, r.target, r.subject) for r in records]
        parts = [self.batch(rows[i : i + TOGETHER]) for i in range(0, len(rows), TOGETHER)]
        return torch.cat([part.at_subjects(read(part.asked())) for part in parts])

    def _change(self, site: Site, keys: Tensor, missing: Tensor) -> None:
        """Solve for a site: keys `[D_in, E]`, what is missing of their outputs `[D_out, E]`."""
        s, path = self.settings, site.path
        preserve = s.moment * self.moments[path] + self.known.get(path, 0)
        preserve += s.ridge * self.units[path] * torch.eye(len(keys), device=keys.device)
        if s.null:
            change = solve_within(self.bases[path], keys, missing, preserve)
        else:
            change = solve(keys, missing, preserve, equality=s.equality)
        self.put(site, self.matrices[path] + change)
        if s.remember:
            self.known[path] = self.known.get(path, 0) + keys @ keys.T

    def state(self) -> dict[str, Tensor]:
        return self.known

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.known = dict(state)


class Rome(ClosedForm):
    """ROME (arXiv 2202.05262): one edit at a time, its new output a constraint."""

    name = "rome"
    defaults = ClosedFormSettings(equality=True, batch=1)


class Emmet(ClosedForm):
    """EMMET (arXiv 2403.14236): as ROME, for a batch at once."""

    name = "emmet"
    defaults = ClosedFormSettings(equality=True)


class Memit(ClosedForm):
    """MEMIT (arXiv 2210.07229): least squares, over several blocks."""

    name = "memit"
    defaults = ClosedFormSettings(moment=100.0, depth=0.25, span=2)


class AlphaEdit(ClosedForm):
    """AlphaEdit (arXiv 2410.02355): least squares in the null space of neutral keys; earlier edits' keys are kept."""

    name = "alphaedit"
    defaults = ClosedFormSettings(moment=0.0, ridge=10.0, null=0.3, remember=True, depth=0.25, span=2)


class Joint(JointEdits, ClosedForm):
    """A closed form aligned so that a sequence of edits ends where all of them at once would (arXiv 2605.26670).

    Values are learned with the unedited weights, and the sites are solved for all edits in force.
    """

    batch_size = 1 << 20  # what comes between two evaluations, at once

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.together = self.batch_size
        self.wanted: dict[str, Tensor] = {}

    def learn(self, records: Sequence[Record]) -> None:
        for site in self.sites:
            self.put(site, site.stored(self.before[site.path]).float())
        for start in range(0, len(records), self.settings.batch):
            part = records[start : start + self.settings.batch]
            self.wanted |= zip([record.prompt for record in part], self.goals(part), strict=True)
        every = list(self.records.values())
        self.spread(every, torch.stack([self.wanted[record.prompt] for record in every]))

    def took(self, batch: Batch) -> list[bool | None]:
        return [None] * len(batch.ids)

    def state(self) -> dict[str, Tensor]:
        return {f"{number}": self.wanted[prompt] for number, prompt in enumerate(self.records)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.loaded = state

    def restore(self, folder: Path) -> None:
        super().restore(folder)
        self.wanted = {prompt: self.loaded[f"{number}"] for number, prompt in enumerate(self.records)}


class JointMemit(Joint, Memit):
    """MEMIT, aligned."""

    name = "memit-joint"


class JointAlphaEdit(Joint, AlphaEdit):
    """AlphaEdit, aligned; with all keys at once none are left to remember."""

    name = "alphaedit-joint"
    defaults = replace(AlphaEdit.defaults, remember=False)


def second_moments(model: Any, chosen: Sequence[Site], batches: Any) -> dict[str, Tensor]:
    """E[k kᵀ] of each site's inputs over all tokens of some texts, `[D_in, D_in]`, float32, by path."""
    sums: dict[str, Tensor] = {}
    tokens = 0
    for batch in batches:
        mask = batch["attention_mask"].bool()
        tokens += int(mask.sum())
        for site, seen in zip(chosen, inputs(model, [site.module for site in chosen], batch), strict=True):
            keys = seen[mask]
            sums[site.path] = sums.get(site.path, 0) + keys.T @ keys
    return {path: total / tokens for path, total in sums.items()}
