"""WISE's own way of learning a side memory: gradient descent in a mask, with margins for the router."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call
from editmem.memory import Calibration, Draft, Prompts
from editmem.methods.wise.scope import Scope
from editmem.methods.wise.shards import Shards
from editmem.methods.wise.training import Training
from editmem.routing.router import at_prompt_ends
from editmem.storage.table import Rows


@dataclass(frozen=True)
class Margins:
    """The norms that the routing score is pushed to (WISE, equation 5), in units of the score.

    Attributes:
        alpha: irrelevant prompts stay below.
        beta: edits come above.
        gamma: edits come above irrelevant prompts by this much.
    """

    alpha: float
    beta: float
    gamma: float

    def loss(self, edits: Tensor, irrelevant: Tensor) -> Tensor:
        """Each hinge averaged over the rows where it is positive."""
        hinges = (irrelevant - self.alpha, self.beta - edits, self.gamma - (edits - irrelevant))
        return torch.stack([_mean_of_positive(hinge) for hinge in hinges]).sum()


def _mean_of_positive(hinge: Tensor) -> Tensor:
    positive = hinge.clamp(min=0)
    return positive.sum() / (positive > 0).sum().clamp(min=1)


class Descent(Training):
    """A shard goes on being learned with each edit; to forget one is to learn the shard without it.

    Args:
        shards, size: as of `Training`.
        rate: step size.
        margins: of the routing score.
        absolute: whether the margins are as given; in units of the host's own if not.
        scope: computes the score.
        replay: whether an edit of each other shard counts as irrelevant too (WISE, appendix B.3).

    Attributes:
        unit: float32, what a score has for the site's own output: its norm at the ends of neutral prompts, by
            the norm of the input where the score is, median.
        inputs, outputs: `[P, D]` and `[P, d]`, into and out of the site on irrelevant prompts, all tokens.
        starts: int64, where each prompt's begin, and the end.
        scores: float32 `[N]`, each edit's score right after it was learned.
    """

    IRRELEVANT = 32
    """Irrelevant prompts; edits take them in turn."""

    unit: Tensor
    inputs: Tensor
    outputs: Tensor
    starts: Tensor

    def __init__(
        self, shards: Shards, size: int, rate: float, margins: Margins, absolute: bool, scope: Scope, replay: bool
    ) -> None:  # fmt: skip
        super().__init__(shards, size)
        self.rate, self.margins, self.absolute, self.replay = rate, margins, absolute, replay
        self._scope = [scope]  # of the memory, which keeps its state
        width, dtype = shards.shape, shards.deltas.dtype
        self.register_buffer("unit", torch.tensor(torch.nan, dtype=torch.float32))
        self.register_buffer("inputs", torch.zeros((0, width[1]), dtype=dtype))
        self.register_buffer("outputs", torch.zeros((0, width[0]), dtype=dtype))
        self.register_buffer("starts", torch.zeros(1, dtype=torch.long))
        self.scores = Rows((), torch.float32)

    @property
    def scope(self) -> Scope:
        return self._scope[0]

    def calibrate(self, host: Calibration) -> None:
        prompts = host.neutral[0]
        real = prompts.call.real[: self.IRRELEVANT]
        self.inputs, self.outputs = prompts.x[: len(real)][real], prompts.out[: len(real)][real]
        self.starts = nn.functional.pad(real.sum(1).cumsum(0), (1, 0))
        x, out = (at_prompt_ends(part, prompts.call)[0][:, 0].float().norm(dim=1) for part in (prompts.x, prompts.out))
        self.unit = (out / x if self.scope.routing == "calibrated" else out).median()

    def hosted(self) -> list[Tensor]:
        return [*super().hosted(), self.inputs, self.outputs]

    def draft(self, edits: Sequence[EncodedEdit], prompts: Prompts, owner: Tensor) -> Draft:
        shard = self.places(1)[0]
        self.shards.resize(max(len(self.shards), shard + 1))
        turn = len(self.rows_of(shard)) % (len(self.starts) - 1)
        irrelevant = slice(int(self.starts[turn]), int(self.starts[turn + 1]))
        return DescentDraft(
            self.shards.deltas[shard].float(),
            self.shards.mask(shard),
            owner,
            self.targets.count(edits),
            self.scope,
            (self.inputs[None, irrelevant], self.outputs[None, irrelevant]),
            self._replayed(shard, turn),
            self._margins(),
            self.rate,
        )

    def _replayed(self, shard: int, turn: int) -> Tensor:
        """What goes into the site at the prompt's end of one edit of each other shard, in turn, `[R, D]`."""
        others = [self.rows_of(number) for number in range(len(self.shards)) if number != shard and self.replay]
        rows = [int(held[turn % len(held)]) for held in others if len(held)]
        return self.ends()[rows] if rows else self.keys.data[:0]

    def _margins(self) -> Margins:
        unit = 1.0 if self.absolute else float(self.unit)
        return Margins(*(unit * margin for margin in (self.margins.alpha, self.margins.beta, self.margins.gamma)))

    def commit(self, edits: Sequence[EncodedEdit], draft: Draft, prompts: Prompts) -> set[int]:
        assert isinstance(draft, DescentDraft)
        shard = self.places(1)[0]
        self._append(edits, prompts, [shard] * len(edits))
        self.shards.deltas[shard] = draft.delta.detach().to(self.shards.deltas.dtype)
        self.scores.append(draft.score(prompts.x, prompts.out, prompts.call)[: len(edits)].detach())
        return {shard}

    def keep(self, rows: Tensor) -> set[int]:
        _, changed = self._left_by(rows)
        self.scores.keep(rows)
        self._keep(rows)
        changed &= set(range(len(self.shards)))
        self.shards.deltas[sorted(changed)] = 0
        return changed

    def restored(self) -> None:
        super().restored()
        if len(self.scores) != len(self.shard):
            raise ValueError("scores and shard differ in their number of rows")


class DescentDraft(Draft):
    """A shard's delta while it is learned: masked SGD on the answer's tokens and the margins (WISE, section 2.3).

    The mask holds the update and nothing else is touched: there is no weight decay.

    Args:
        delta: float32 `[d, D]`, where the shard stands.
        mask: bool `[d, D]`.
        owner: int64 `[B]`, which edit each row of the batch belongs to.
        lengths: int64 `[E]`, tokens in each target.
        scope: computes the routing score.
        irrelevant: `[1, T, D]` and `[1, T, d]`, what goes into and comes out of the site on an irrelevant prompt.
        replayed: `[R, D]`, what goes into the site at the ends of other shards' prompts.
        margins: of the routing score.
        rate: step size.
    """

    def __init__(
        self, delta: Tensor, mask: Tensor, owner: Tensor, lengths: Tensor, scope: Scope,
        irrelevant: tuple[Tensor, Tensor], replayed: Tensor, margins: Margins, rate: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.delta, self.mask = nn.Parameter(delta.clone()), mask
        self.owner, self.lengths = owner, lengths
        self.scope, self.irrelevant, self.replayed = scope, irrelevant, replayed
        self.margins, self.rate = margins, rate
        self.margin_loss: Tensor | None = None

    def forward(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        assert call.step is not None
        active = (call.step >= 0) & (call.step < self.lengths[self.owner][:, None])
        self.margin_loss = self.margins.loss(self.score(x, out, call), self._irrelevant()) + self._replay_loss()
        stored = self.delta + (self.delta.to(out.dtype).float() - self.delta).detach()
        return out + torch.where(active[..., None], nn.functional.linear(x.float(), stored), 0).to(out.dtype)

    def score(self, x: Tensor, out: Tensor, call: Call) -> Tensor:
        """The routing score of each row's prompt, float32 `[B]`."""
        assert call.step is not None
        counted = call.real & ((call.step <= 0) if self.scope.pooling == "mean" else (call.step == 0))
        return self._mean(x, out, counted)

    def _irrelevant(self) -> Tensor:
        x, out = self.irrelevant
        counted = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if self.scope.pooling == "last":
            counted[:, :-1] = False
        return self._mean(x, out, counted)

    def _replay_loss(self) -> Tensor:
        """Prompts of other shards stay below alpha (WISE, appendix B.3)."""
        if not len(self.replayed):
            return self.delta.new_zeros(())
        nothing = self.delta.new_zeros(len(self.replayed), len(self.delta))
        scores = self.scope.of_tokens(self.replayed.float(), nothing, self.delta[None])[:, 0]
        return _mean_of_positive(scores - self.margins.alpha)

    def _mean(self, x: Tensor, out: Tensor, counted: Tensor) -> Tensor:
        scores = self.scope.of_tokens(x.float(), out, self.delta[None])[..., 0]
        return torch.where(counted, scores, 0).sum(1) / counted.sum(1)

    def settled(self) -> bool:
        return self.margin_loss is not None and float(self.margin_loss.detach()) == 0

    def step(self, loss: Tensor, unfinished: Tensor) -> None:
        assert self.margin_loss is not None
        tokens = self.lengths[self.owner].sum()  # the paper's loss is a mean over rows and tokens
        (gradient,) = torch.autograd.grad(loss / tokens + self.margin_loss, self.delta)
        with torch.no_grad():
            self.delta.sub_(self.rate * gradient * self.mask)
