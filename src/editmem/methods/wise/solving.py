"""Learn a side memory in closed form: each edit's outputs by gradient, then the shard that gives them by least squares.

Below the site the host is frozen, so what goes into the site at an edit's own tokens never changes, and a shard
has to do no more than map those inputs to the outputs that were learned for them, and inputs of other prompts to
little. Inputs count by their direction: long ones do not weigh more than short ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem.edits.edit import EncodedEdit
from editmem.memory import Calibration, Draft, Prompts
from editmem.methods.wise.least_squares import factor, solve
from editmem.methods.wise.shards import Shards
from editmem.methods.wise.training import Training
from editmem.residual.offsets import OffsetDraft
from editmem.routing.router import at_prompt_ends
from editmem.storage.table import Rows
from editmem.storage.targets import spans


class Solving(Training):
    """Shards are a function of their edits' inputs and outputs: to forget is to solve without them.

    Args:
        shards, size: as of `Training`.
        rate: of Adam, as a share of the root mean square of the site's output.
        strength: what an edit adds at its prompt's end, in units of the site's output norm.
        ridge: in units of 1 / D, see `least_squares.solve`.
        apart: weight of the end of another edit's prompt against one of the shard's own.

    Attributes:
        quiet: `[R, D]`, stands for the inputs at the ends of prompts that no edit is for.
        unit: float32, the site's output norm over its input norm, median over neutral prompts.
    """

    RANK = 256
    """Of what stands for quiet inputs."""
    FEWEST = 32
    """From so many edits on, they keep each other's shards quiet."""

    quiet: Tensor
    unit: Tensor

    def __init__(
        self, shards: Shards, size: int, rate: float, strength: float, ridge: float, apart: float
    ) -> None:  # fmt: skip
        super().__init__(shards, size)
        width, dtype = shards.shape[1], shards.deltas.dtype
        self.rate, self.strength, self.ridge, self.apart = rate, strength, ridge / width, apart
        self.register_buffer("quiet", torch.zeros((0, width), dtype=dtype))
        self.register_buffer("unit", torch.tensor(torch.nan, dtype=torch.float32))
        self.outputs = Rows((shards.shape[0],), dtype)

    def calibrate(self, host: Calibration) -> None:
        ends = [end_inputs(prompts) for prompts in (*host.neutral, *host.hard_negatives)]
        self.quiet = standing_for(ends, self.RANK).to(self.quiet.dtype)
        first = host.neutral[0]
        norms = [at_prompt_ends(part, first.call)[0][:, 0].float().norm(dim=1) for part in (first.out, first.x)]
        self.unit = (norms[0] / norms[1]).median()

    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        lengths = self.targets.count(edits)
        inputs, outputs = (
            at_prompt_ends(p, prompts.call)[0][: len(edits), 0].float() for p in (prompts.x, prompts.out)
        )
        offsets = torch.zeros(
            (len(edits), int(lengths.max()), self.shards.shape[0]), dtype=torch.float32, device=lengths.device
        )
        rate = self.rate * outputs.square().mean(-1).sqrt()
        sizes = self.strength * self.unit * inputs.norm(dim=1)
        return SizedDraft(sizes, offsets, lengths, owner, rate, prompts.out.dtype)

    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> set[int]:
        assert isinstance(draft, SizedDraft)
        before = self._spread()
        shards = self.places(len(edits))
        used = torch.arange(draft.offsets.shape[1], device=draft.lengths.device) < draft.lengths[:, None]
        self.outputs.append(draft.offsets.detach()[used])
        self._append(edits, prompts, shards)
        return self._solve(set(shards) if self._spread() == before else set(range(len(self.shards))))

    def keep(self, rows: Tensor) -> set[int]:
        gone, changed = self._left_by(rows)
        among = bool(gone[: self._spread()].any())
        self.outputs.keep(spans(self.targets.lengths.used, rows))
        self._keep(rows)
        every = range(len(self.shards))
        return self._solve(set(every) if among else changed.intersection(every))

    def hosted(self) -> list[Tensor]:
        return [*super().hosted(), self.outputs.data, self.quiet]

    def _spread(self) -> int:
        """How many edits, the first ones, keep each other's shards quiet: a power of two, so that it changes rarely."""
        count = len(self.shard)
        return 0 if count < self.FEWEST else 1 << (count.bit_length() - 1)

    def _solve(self, shards: set[int]) -> set[int]:
        """Make these shards anew."""
        background = self.background(self.ends()[: self._spread()], self.quiet)
        for number in sorted(shards):
            tokens = spans(self.targets.lengths.used, self.rows_of(number))
            delta = self.delta(self.keys.used[tokens], self.outputs.used[tokens], background, self.shards.mask(number))
            self.shards.deltas[number] = delta.to(self.shards.deltas.dtype)
        return shards

    def background(self, ends: Tensor, quiet: Tensor) -> Tensor:
        """Float32 `[at most RANK, D]`: quiet inputs, with the prompt ends `[E, D]` of edits among them."""
        if not len(ends):
            return quiet.float()
        rows = nn.functional.normalize(ends.float(), dim=1) * self.apart**0.5
        return factor(torch.cat([quiet.float(), rows]), self.RANK)

    def delta(self, keys: Tensor, outputs: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """A shard, float32 `[d, D]`, from the inputs `[P, D]` and outputs `[P, d]` of its edits."""
        size = keys.float().norm(dim=1, keepdim=True)
        rows = torch.cat([keys.float() / size, background])
        wanted = nn.functional.pad(outputs.float() / size, (0, 0, 0, len(background)))
        return solve(rows, wanted, mask, self.ridge)

    def restored(self) -> None:
        super().restored()
        if len(self.outputs) != len(self.keys):
            raise ValueError("keys and outputs differ in their number of rows")


class SizedDraft(OffsetDraft):
    """Offsets while they are learned, the first of each edit held to a given norm, or more where that is not enough.

    The router goes by that norm: an edit that is easily learned would else be hard to find, and one that takes long
    would be found everywhere.

    Args:
        sizes: float32 `[E]`, the norms.
        offsets, lengths, owner, rate, dtype: as of `OffsetDraft`.
    """

    HELD = 20
    """Steps for which the norm is no more than the given one."""

    def __init__(
        self, sizes: Tensor, offsets: Tensor, lengths: Tensor, owner: Tensor, rate: Tensor, dtype: torch.dtype
    ) -> None:  # fmt: skip
        super().__init__(offsets, lengths, owner, rate, dtype)
        self.sizes = sizes

    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        super().step(loss, unfinished)
        with torch.no_grad():
            first = self.offsets[:, 0]
            factor = self.sizes[:, None] / first.norm(dim=1, keepdim=True).clamp(min=1e-12)
            first.mul_(factor if self.count <= self.HELD else factor.clamp(min=1))


def end_inputs(prompts: Prompts) -> Tensor:
    """Directions of what goes into the site at prompts' ends, float32 `[B, D]`."""
    return nn.functional.normalize(at_prompt_ends(prompts.x, prompts.call)[0][:, 0].float(), dim=1)


def standing_for(groups: Sequence[Tensor], rank: int) -> Tensor:
    """Rows `[at most rank, D]` that stand for those of several groups together, with a weight of 1 in total."""
    rows = torch.cat(list(groups))
    return factor(rows / len(rows) ** 0.5, rank)
