"""Whether a question is within the scope of an edit: features of the bare host, compared by a learned measure."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.visual.inputs import Reader, grouped
from benchmarks.visual.records import Question

BATCH = 16


def features(model: Any, reader: Reader, questions: Sequence[Question], depth: float) -> Tensor:
    """What a host makes of questions at some depth of its decoder, from 0 to 1: means over tokens, float32 `[B, 2, d]`.

    The first is of the text, read without the picture; the second of the picture, at its places in front of the text,
    or 0 where there is none.
    """
    image = reader.tokenizer.convert_tokens_to_ids(reader.processor.image_token)
    width = model.config.get_text_config().hidden_size
    found = torch.zeros(len(questions), 2, width, device=reader.device)
    plain = [Question(question.prompt) for question in questions]
    for slot, asked in ((0, plain), (1, list(questions))):
        for places in grouped(asked, BATCH):
            batch = reader.batch([asked[i] for i in places]).inputs
            seen = batch["input_ids"] == image
            if slot == 1 and not seen.any():
                continue
            states = model(**batch, output_hidden_states=True, use_cache=False).hidden_states
            share = (seen if slot else batch["attention_mask"].bool()).float()
            mean = torch.einsum(
                "bld,bl->bd", states[round(depth * (len(states) - 1))].float(), share / share.sum(1, keepdim=True)
            )
            found[places, slot] = mean
    return found


class Scope(nn.Module):
    """How likely a question is within the scope of an edit.

    Features are standardised on those that the scope is fitted to, each dimension is weighted, and cosines of text and
    picture are added up with learned weights.

    Args:
        known: features that it is fitted to, `[N, 2, d]`.
        pictured: which of them have a picture, bool `[N]`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, known: Tensor, pictured: Tensor) -> None:
        super().__init__()
        parts = [known[:, 0], known[pictured][:, 1] if pictured.any() else known[:, 1]]
        self.register_buffer("mean", torch.stack([part.mean(0) for part in parts]))
        self.register_buffer("deviation", torch.stack([part.std(0) + 1e-6 for part in parts]))
        self.weight = nn.Parameter(torch.ones_like(known[0]))
        self.mix = nn.Parameter(torch.tensor([16.0, 16.0], device=known.device))
        self.bias = nn.Parameter(torch.tensor([-8.0, -16.0], device=known.device))  # without a picture, and with one

    def forward(self, asked: Tensor, edited: Tensor) -> Tensor:
        """Logits `[Q, E]` of questions `[Q, 2, d]` and edits `[E, 2, d]`, all with a picture or all without."""
        one, other = (
            nn.functional.normalize((x - self.mean) / self.deviation * self.weight, dim=-1) for x in (asked, edited)
        )
        near = torch.einsum("qsd,esd->qes", one, other)
        pictured = edited[:, 1].any() if len(edited) else False
        return (near * self.mix).sum(-1) + self.bias[1] if pictured else near[..., 0] * self.mix[0] + self.bias[0]


def fit(scope: Scope, groups: Sequence[tuple[Tensor, Tensor, Tensor]], steps: int, rate: float) -> None:
    """Learn to tell of which edit's scope a question is, or of none, whose logit is 0.

    Args:
        scope: changed in place.
        groups: questions `[Q, 2, d]`, edits `[E, 2, d]`, and the number of each question's edit, E for none, `[Q]`.
        steps: of Adam.
        rate: its step size.
    """
    optimizer = torch.optim.Adam(scope.parameters(), lr=rate)
    for _ in range(steps):
        loss = torch.zeros((), device=scope.weight.device)
        for asked, edited, owners in groups:
            logits = scope(asked, edited)
            loss = loss + nn.functional.cross_entropy(torch.cat([logits, torch.zeros_like(logits[:, :1])], 1), owners)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
