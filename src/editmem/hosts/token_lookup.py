"""Which tokens embeddings were looked up from, for hosts that are called with `inputs_embeds`."""

import torch
from torch import Tensor, nn

from editmem.hosts.forward import NO_TOKEN

_SAMPLED = 64  # elements of an embedding that are compared, bit by bit


class TokenLookup:
    """Finds the token ids of embeddings that come from the host's own table, unchanged."""

    def __init__(self) -> None:
        self._made_from: tuple[int, int, int] | None = None
        self._hashes = torch.zeros(0, dtype=torch.long)
        self._ids = torch.zeros(0, dtype=torch.long)

    def tokens(self, embeds: Tensor, embedding: nn.Embedding) -> Tensor:
        """Int64 `[B, T]` of embeddings `[B, T, d]`; `NO_TOKEN` for those that are not in the table."""
        weight = embedding.weight
        if weight.dtype != embeds.dtype:
            return torch.full(embeds.shape[:2], NO_TOKEN, dtype=torch.long, device=embeds.device)
        made_from = (weight.data_ptr(), weight._version, weight.shape[0])
        if made_from != self._made_from:
            with torch.no_grad():
                # Through the module: some hosts scale what they look up.
                every = embedding(torch.arange(weight.shape[0], device=embeds.device))
            self._hashes, self._ids = _hash(every).sort()
            self._made_from = made_from
        hashes, ids = self._hashes.to(embeds.device), self._ids.to(embeds.device)
        wanted = _hash(embeds)
        place = torch.searchsorted(hashes, wanted).clamp(max=len(hashes) - 1)
        return torch.where(hashes[place] == wanted, ids[place], NO_TOKEN)


def _hash(rows: Tensor) -> Tensor:
    """Int64 `[...]` of rows `[..., d]`: equal for equal bits, whatever the batch."""
    width = rows.shape[-1]
    columns = torch.linspace(0, width - 1, min(_SAMPLED, width), dtype=torch.float32, device=rows.device).long()
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows.element_size()]
    bits = rows.detach()[..., columns].contiguous().view(whole).long()
    factors = torch.arange(1, len(columns) + 1, device=rows.device) * 0x1E3779B97F4A7C15 | 1
    return (bits * factors).sum(-1)
