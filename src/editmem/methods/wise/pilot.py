"""A routing threshold for shards that are not there yet: from shards of built-in prompts."""

import torch
from torch import Tensor, nn

from editmem.memory import Calibration
from editmem.methods.wise.solving import Solving, end_inputs, standing_for

EVERY = 4
"""One in so many questions about a name is an edit of the pilot."""
HIGHEST = 0.98
"""An edit's own prompt has to match, however much alike a host's states are."""


def pilot_threshold(host: Calibration, solving: Solving, false_match_rate: float) -> float:
    """The score, in units of a shard's own edits, that this share of look-alike prompts exceeds.

    Half of the built-in names are kept quiet. Of the questions about the other half a few become edits, with
    arbitrary outputs; all others must not match, and name the same or ask the same as those.

    Args:
        host: neutral and alike prompts; the stricter rendering decides.
        solving: makes the shards; holds no edits yet.
        false_match_rate: the share.
    """
    found = [_threshold(host, rendering, solving, false_match_rate) for rendering in range(len(host.hard_negatives))]
    return min(HIGHEST, max(found))


def _threshold(host: Calibration, rendering: int, solving: Solving, rate: float) -> float:
    ends = end_inputs(host.hard_negatives[rendering])
    questions = len(ends) // host.names
    place = torch.arange(len(ends), device=ends.device)
    name, question = place // questions, place % questions
    known = name % 2 == 1
    edits = ~known & ((name // 2 + question) % EVERY == 0)
    quiet = standing_for([end_inputs(host.neutral[rendering]), ends[known]], solving.RANK)
    background = solving.background(ends[edits], quiet)
    scores = []
    for number, keys in enumerate(ends[edits].split(solving.size)):
        delta = solving.delta(keys, _outputs(len(keys), solving), background, solving.shards.draw(number))
        scores.append((ends @ delta.T).norm(dim=1) / (keys @ delta.T).norm(dim=1).median())
    return float(torch.stack(scores)[:, ~known & ~edits].amax(0).quantile(1 - rate))


def _outputs(count: int, solving: Solving) -> Tensor:
    """Arbitrary directions."""
    generator = torch.Generator().manual_seed(solving.shards.seed)
    outputs = torch.randn(count, solving.shards.shape[0], generator=generator)
    return nn.functional.normalize(outputs, dim=1).to(solving.quiet.device)
