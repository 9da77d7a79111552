"""Attach memories to a model by swapping classes (`swapped.py`), and take them off without a trace.

`state_dict` keys, `isinstance`, `.weight`, hooks, PEFT and accelerate are as before; setting the class back is the
whole of detaching.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from torch import Tensor, nn

from editmem.errors import HostError
from editmem.hosts.disguise import Disguised, host_class
from editmem.hosts.forward import Call, Context
from editmem.hosts.gate import Gate
from editmem.hosts.staged import RewritesPrompts, StagedPrompts
from editmem.hosts.swapped import SLOT, Part, Site, entry_class, generating_class, head_class, part_class, site_class
from editmem.hosts.token_lookup import TokenLookup

_NO_CODE = (lambda: None).__code__


class SiteMemory(Protocol):
    """What a slot asks of a memory."""

    window: int

    def __call__(self, x: Tensor, out: Tensor, call: Call) -> Tensor: ...
    def __len__(self) -> int: ...
    def begun(self, tail: Tensor) -> Tensor: ...


class Slots:
    """Everything that is attached to one model: its sites, its entries and what they share."""

    def __init__(self) -> None:
        self.context = Context()
        self.gate = Gate()
        self.sites: dict[str, Site] = {}
        self.modules: list[nn.Module] = []
        self.placed: dict[str, tuple[nn.Module, Callable]] = {}
        self._there: list[tuple[nn.Module, str, nn.Module | None]] = []
        self.model: nn.Module | None = None
        self.lookup = TokenLookup()
        self.stage: RewritesPrompts | None = None
        self.embedding: Callable[[], nn.Module] | None = None

    def tokens_of(self, embeds: Tensor) -> Tensor | None:
        """Token ids `[B, T]` of embeddings `[B, T, d]`, as far as they are the host's own; None if it has none."""
        embedding = None if self.embedding is None else self.embedding()
        return self.lookup.tokens(embeds, embedding) if isinstance(embedding, nn.Embedding) else None

    @property
    def idle(self) -> bool:
        """Whether no memory holds anything, so that a forward may pass untouched."""
        return not any(len(memory) for memory in self.memories())

    @property
    def window(self) -> int:
        return max([1, *[memory.window for memory in self.memories()]])

    def memories(self) -> Iterator[Any]:
        """What runs at its sites."""
        return (memory for site in self.sites.values() for memory in site.memories)

    def staged(self, inputs: dict[str, Any], lengths: Tensor | None, generating: bool) -> StagedPrompts | None:
        """What the prompt stage makes of prompts; None where there is none, or nothing is to be rewritten."""
        context = self.context
        busy = context.inside or context.silent or context.generations or context.stand_ins or context.decided
        return None if self.stage is None or busy or self.idle else self.stage.read(inputs, lengths, generating)

    def attach_site(self, path: str, module: nn.Module, memory: SiteMemory) -> None:
        """Let `memory` run on the output of `module`, after the memories that are there already."""
        if path not in self.sites:
            self.sites[path] = Site(path, self)
            self._place(path, module, site_class, self.sites[path])
        self.sites[path].memories.append(memory)

    def attach_block(self, path: str, module: nn.Module, notes: bool = True) -> None:
        """Let the block at `path` remember its call where it is run anew, and note in it what goes in if `notes`."""
        if (block := self._attach_part(path, module)) is not None:
            block.runs_anew = True
            block.notes_input |= notes

    def attach_noted(self, path: str, module: nn.Module) -> None:
        """Let the module at `path` note in the call what comes out of it."""
        if (part := self._attach_part(path, module)) is not None:
            part.notes_output = True

    def attach_taped(self, path: str, module: nn.Module) -> None:
        """Let the module at `path` return what a `Tape` has of it, where one is played."""
        self._attach_part(path, module)

    def _attach_part(self, path: str, module: nn.Module) -> Part | None:
        """What is kept of the module at `path`; None where it is a site."""
        if SLOT not in module.__dict__:
            self._place(path, module, part_class, Part(path, self.context))
        state = module.__dict__[SLOT]
        return state if isinstance(state, Part) else None

    def attach_head(self, head: nn.Module | None) -> None:
        """Let the output embeddings run for the tokens alone that are wanted; not where a memory is on them."""
        if isinstance(head, nn.Linear) and SLOT not in head.__dict__:
            self._swap(head, head_class(cast(Any, type(head))), self.context)

    def attach_entries(self, model: nn.Module, decoder: nn.Module) -> None:
        """Let `model` (with `generate`), its body and the `decoder` in it work out the call of each forward."""
        self.model, self.embedding = model, model.get_input_embeddings  # type: ignore[assignment]
        self._swap(model, generating_class(cast(Any, type(model))), self)
        for part in {cast(nn.Module, model.base_model), decoder} - {model}:
            self._swap(part, entry_class(cast(Any, type(part))), self)
        self._look()

    def _place(self, path: str, module: nn.Module, made_of: Callable, state: Any) -> None:
        self._swap(module, made_of(type(module)), state)
        self.placed[path] = module, made_of

    def follow_sites(self) -> None:
        """Before a forward: go by the model as it is, where a site has been replaced; a look at each site."""
        if any(parent._modules.get(name) is not here for parent, name, here in self._there):
            self.move_along()

    def move_along(self) -> None:
        """Follow the model where a module has been replaced by another since, as PEFT does to merge its layers.

        Raises:
            HostError: if there is none in its place.
        """
        for path, (module, made_of) in list(self.placed.items()):
            try:
                here = cast(nn.Module, self.model).get_submodule(path)
            except AttributeError as error:
                raise HostError(
                    f"the model has no module {path!r} any more, on which a memory sits; undo what took it away, or "
                    "unwrap the model and load the saved memory on it again"
                ) from error
            if here is not module and all(part is not module for part in here.modules()):
                state = module.__dict__[SLOT]
                _swap_back(module, _without_ours(type(module)))
                self.modules.remove(module)
                self._place(path, here, made_of, state)
        self._look()

    def _look(self) -> None:
        """Note what is where the sites are, which may be an adapter around one."""
        self._there = []
        for path in self.sites:
            parent, _, name = path.rpartition(".")
            above = cast(nn.Module, self.model).get_submodule(parent)
            self._there.append((above, name, above._modules.get(name)))

    def _swap(self, module: nn.Module, cls: type, state: Any) -> None:
        self.modules.append(module)  # first: `detach` takes off what an interruption leaves
        module.__dict__[SLOT] = state
        module.__class__ = cls

    def detach(self) -> None:
        """Give every module its own class back.

        Raises:
            HostError: if a class that was put on top of ours cannot do without it; nothing is changed then.
        """
        with self.gate.changing():
            self._detach()

    def _detach(self) -> None:
        classes = [_without_ours(type(module)) for module in self.modules]
        for module, cls in zip(self.modules, classes, strict=True):
            _swap_back(module, cls)
        for held in (self.modules, self.placed, self._there, self.sites):
            held.clear()
        self.model = self.embedding = self.stage = None


def _swap_back(module: nn.Module, cls: type) -> None:
    module.__class__ = cls
    module.__dict__.pop(SLOT, None)


def _without_ours(cls: Any) -> type:
    """The class of a module without ours in it: others, as `parametrize` or `fully_shard`, may have made theirs of it.

    Raises:
        HostError: if theirs cannot be made anew on top of the host's own.
    """
    if not issubclass(cls, Disguised):
        return cls
    if (own := host_class(cls)) is not None:
        return own
    bases = tuple(_without_ours(base) for base in cls.__bases__)
    if any("__class__" in getattr(value, "__code__", _NO_CODE).co_freevars for value in vars(cls).values()):
        raise HostError(
            f"the class of a {cls._host_class.__name__} in the model was replaced by {cls.__qualname__} after "
            "wrapping, and cannot be taken apart; undo that first, then unwrap"
        )
    names = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls)(cls.__name__, bases, names)


def slots_of(model: nn.Module) -> Slots | None:
    """What is attached to the model or to a model inside it, or None."""
    for module in model.modules():
        if isinstance(state := module.__dict__.get(SLOT), Slots):
            return state
    return None
