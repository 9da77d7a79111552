"""Where weights are edited: the down-projections of a host's feed-forward blocks, found by structure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from editmem.hosts import compat


@dataclass(frozen=True)
class Site:
    """The last linear map of a decoder block whose outputs have the host's hidden size.

    Attributes:
        path: of the module in the host.
        module: an `nn.Linear`, or GPT-2's `Conv1D`, which keeps its weight transposed.
        block: the decoder block.
        below: the blocks before it.
    """

    path: str
    module: nn.Module
    block: nn.Module
    below: tuple[nn.Module, ...]

    def matrix(self) -> Tensor:
        """The weight as `[D_out, D_in]`, float32, a copy."""
        return self.stored(self.module.weight.detach()).float().clone()

    def stored(self, matrix: Tensor) -> Tensor:
        """A `[D_out, D_in]` matrix as the module keeps it; its own inverse."""
        return matrix.T if isinstance(self.module, Conv1D) else matrix

    def put(self, matrix: Tensor) -> None:
        """Make `[D_out, D_in]` the weight, in place."""
        with torch.no_grad():
            self.module.weight.copy_(self.stored(matrix))


def sites(model: Any) -> list[Site]:
    """The sites of a host, lowest block first.

    Raises:
        ValueError: if the model has no list of blocks with such maps.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of decoder blocks; give a decoder-only language model")
    prefix, blocks = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    width = model.config.get_text_config().hidden_size
    found = []
    for i, block in enumerate(blocks):
        maps = [(name, m) for name, m in block.named_modules() if _outputs(m) == width]
        if not maps:
            raise ValueError(f"block {prefix}.{i} has no linear map to {width} features; its weights cannot be edited")
        name, module = maps[-1]
        found.append(Site(f"{prefix}.{i}.{name}", module, block, tuple(blocks[:i])))
    return found


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.nf if isinstance(module, Conv1D) else None


def choose(method: str, every: Sequence[Site], numbers: Sequence[int]) -> list[Site]:
    """The sites of some blocks, lowest first.

    Args:
        method: for messages.
        every: all sites of a host.
        numbers: of the blocks, from 0; negative ones count from the end.

    Raises:
        ValueError: if there is no such block.
    """
    for number in numbers:
        if not -len(every) <= number < len(every):
            raise ValueError(f"{method} cannot edit layer {number}: the host has {len(every)} blocks, from 0")
    return [every[number] for number in sorted({number % len(every) for number in numbers})]


def pick(method: str, model: Any, layers: Sequence[int], depth: float, span: int = 1) -> list[Site]:
    """The sites of a host that a method edits, lowest first.

    Args:
        method: for messages.
        model: the host.
        layers: see `choose`; none for `span` blocks, the highest of them at `depth`.
        depth: 0 is the lowest block, 1 the highest.
        span: see `layers`.

    Raises:
        ValueError: if a block does not exist, or depth is above 1.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"depth of {method} must be in 0 to 1, not {depth!r}")
    every = sites(model)
    top = round(depth * (len(every) - 1))
    return choose(method, every, layers or range(max(0, top + 1 - int(span)), top + 1))


@contextmanager
def replaying(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Forwards of one and the same batch inside the block: these blocks are run once, then repeat what they said."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(_forward(block, _once(block.forward)))
        yield


def _once(forward: Callable[..., Any]) -> Callable[..., Any]:
    said: list[Any] = []

    def again(*args: Any, **kwargs: Any) -> Any:
        if not said:
            with torch.no_grad():
                said.append(forward(*args, **kwargs))
        return said[0]

    return again


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.forward = own  # type: ignore[method-assign]


@contextmanager
def hooked(handles: Sequence[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    """Hooks that are taken off at the end of the block."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def outputs(model: Any, modules: Sequence[nn.Module], asked: Mapping[str, Tensor]) -> list[Tensor]:
    """What modules of a host put out in one forward, float32 `[B, L, D]` each; of a tuple, its first part."""
    return [said for _, said in _seen(model, modules, asked)]


def inputs(model: Any, modules: Sequence[nn.Module], asked: Mapping[str, Tensor]) -> list[Tensor]:
    """What goes into modules of a host in one forward, float32 `[B, L, D]` each."""
    return [given for given, _ in _seen(model, modules, asked)]


def _seen(model: Any, modules: Sequence[nn.Module], asked: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, given: tuple[Tensor, ...], said: Any) -> None:
        kept[module] = given[0].float(), (said[0] if isinstance(said, tuple) else said).float()

    with torch.no_grad(), hooked([module.register_forward_hook(keep) for module in modules]):
        model(**asked, **_headless(model))
    return [kept[module] for module in modules]


def _headless(model: Any) -> dict[str, Any]:
    """Arguments with which a forward keeps nothing, and its head runs for one token a row."""
    taken = compat.parameter_names(model.forward)
    return {name: value for name, value in {"use_cache": False, "logits_to_keep": 1}.items() if name in taken}


def passes_on(model: Any, site: Site, asked: Mapping[str, Tensor]) -> bool:
    """Whether what is added to a site's output is added to its block's; not where a norm stands between (Gemma)."""
    (said,) = outputs(model, [site.module], asked)
    more = said.square().mean().sqrt() * torch.linspace(-1, 1, said.shape[-1], device=said.device)

    def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out + more.to(out.dtype)

    (before,) = outputs(model, [site.block], asked)
    with hooked([site.module.register_forward_hook(add)]):
        (after,) = outputs(model, [site.block], asked)
    return bool((after - before - more).norm() < 0.05 * (after - before).norm())
