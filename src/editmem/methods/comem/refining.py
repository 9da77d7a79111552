"""Have an edit's embeddings say its answer, where what the encoder made of it does not."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem.editing.writer import Writer
from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import IGNORED_LABEL
from editmem.methods.comem.rows import batch_with, standing_in


def refined(
    writer: Writer,
    words: str,
    renderings: Sequence[EncodedEdit],
    embeddings: Tensor,
    steps: int,
    rate: float,
    margin: float,
) -> Tensor:
    """Embeddings of one edit, changed until the host answers with it.

    Args:
        writer: of the memory.
        words: the name of the host's word embeddings.
        renderings: the edit, with a picture in all of them or in none.
        embeddings: `[1, k, d]`, as they were encoded; they are where the search begins.
        steps: most steps of Adam.
        rate: of Adam, as a share of the embeddings' standard deviation.
        margin: it is done when each token of the answer beats all others together by so many nats.

    Returns:
        `[1, k, d]`; as given where the host answers so already.
    """
    rows = [[0] for _ in renderings]
    batch = batch_with(renderings, rows, embeddings.shape[1], writer)
    leaf = embeddings.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([leaf], lr=rate * float(leaf.detach().std()))
    enough = math.log1p(math.exp(-margin))
    with torch.enable_grad():
        for _ in range(steps):
            logits = writer.runner().logits(batch, {words: standing_in(rows, leaf)}).float()
            losses = nn.functional.cross_entropy(
                logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
            )
            if float(losses.detach().max()) <= enough:
                break
            (leaf.grad,) = torch.autograd.grad(losses.sum(), [leaf])
            optimiser.step()
    return leaf.detach()
