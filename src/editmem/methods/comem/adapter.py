"""A LoRA on the host's linear maps that is there only while items are encoded."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from editmem.hosts.structure import SiteInfo


class Adapter(nn.Module):
    """`W x + (alpha / rank) B A x` at every map (LoRA, arXiv 2106.09685), by hooks that are set for a block of code.

    The host reads without it otherwise: not a weight, a class or a key of its `state_dict` is another.

    Args:
        sites: the linear maps.
        rank, alpha: as in the paper.
        generator: of A before training; B begins as zero.
    """

    def __init__(self, sites: Sequence[SiteInfo], rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.paths, self.scale = [site.path for site in sites], alpha / rank
        self.down = nn.ParameterList(_uniform(rank, site.in_features, generator) for site in sites)  # A
        self._off = set[int]()  # threads
        self.up = nn.ParameterList(torch.zeros(site.out_features, rank) for site in sites)  # B

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """Around passes of this thread that it takes part in, and their backward passes where blocks run anew."""
        thread = threading.get_ident()

        def hook(number: int) -> Any:
            def add(_: nn.Module, given: tuple[Any, ...], out: Tensor) -> Tensor:
                if thread in self._off or threading.get_ident() != thread:
                    return out
                down, up = self.down[number].to(out.device), self.up[number].to(out.device)
                return out + (self.scale * (given[0].to(down.dtype) @ down.T) @ up.T).to(out.dtype)

            return add

        handles = [model.get_submodule(path).register_forward_hook(hook(i)) for i, path in enumerate(self.paths)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def off(self) -> Iterator[None]:
        """Around passes inside of `on` that it takes no part in."""
        self._off.add(threading.get_ident())
        try:
            yield
        finally:
            self._off.discard(threading.get_ident())


def _uniform(rank: int, width: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(rank, width, generator=generator) - 1) / width**0.5
