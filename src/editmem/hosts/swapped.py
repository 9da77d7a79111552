"""The classes that modules of a host are swapped for: cached subclasses of their own that override `__call__`.

What a class needs lies in the `__dict__` of the module, under `SLOT`. The *site* lets its memories run on its output; a
*part* (a block, a vision tower) notes what goes in or comes out; the *head* runs for the tokens that are wanted; the
*entry* (the model with `generate`, and the decoder inside it) works out the call of each forward.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from editmem.errors import HostError
from editmem.hosts import caches, compat
from editmem.hosts.disguise import Disguised, disguised
from editmem.hosts.forward import OUTPUT, Context
from editmem.hosts.generation import (
    Attached,
    generation_of,
    next_call,
    note_generated,
    padding_to_the_left,
    prepared_call,
    prompt_lengths,
    said_before,
    with_prompt,
)
from editmem.hosts.modes import lasting

SLOT = "_editmem_slot"


@dataclass
class Part:
    """A module of the host of which the call notes what went in (blocks) or came out (vision towers), if anything."""

    path: str
    context: Context
    notes_input: bool = False
    notes_output: bool = False
    runs_anew: bool = False


class Site:
    """One module of the host and the memories that run on its output, in order."""

    def __init__(self, path: str, slots: Attached) -> None:
        self.path = path
        self.slots = slots
        self.memories: list[Any] = []
        self.device: torch.device | None = None

    @lasting
    def place(self, device: torch.device) -> None:
        """Have the memories where the site runs: hosts may be dispatched over several devices at any time."""
        for memory in self.memories:
            memory.to(device)
        self.device = device

    def run(self, x: Tensor, out: Any) -> Any:
        call = self.slots.context.call
        if call is None:
            return out
        base, rest = (out[0], out[1:]) if isinstance(out, tuple) else (out, None)
        if base.is_meta:  # a pass for the shapes alone
            return out
        if base.device != self.device:
            self.place(base.device)
        call, x = call.on(base.device), x.to(base.device)
        # Some hosts flatten batch and time before their feed-forward block.
        rows = call.real.shape
        result = base.view(*rows, base.shape[-1])
        x = x.view(*rows, x.shape[-1]) if x.is_floating_point() else x.view(rows)  # token ids
        for memory in (call.stand_ins[self.path],) if self.path in call.stand_ins else self.memories:
            result = memory(x, result, call)
        result = result.view_as(base)
        return result if rest is None else (result, *rest)


class _Swapped(Disguised):
    """What all swapped classes share: pickling the whole model is refused."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise HostError(
            f"a whole {type(self).__name__} with editmem memories attached cannot be pickled; save the host with "
            "model.save_pretrained(folder) or its state_dict(), and the memory with editor.save_pretrained(folder)"
        )


class _SiteCall(_Swapped):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = super().__call__(*args, **kwargs)  # type: ignore[misc]
        x = args[0] if args else kwargs["hidden_states"]
        return self.__dict__[SLOT].run(x, out)

    def _apply(self, fn: Callable, recurse: bool = True) -> Any:
        site: Site = self.__dict__[SLOT]
        site.device = None
        for memory in site.memories:
            memory._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[misc]


class _Checkpointed(_Swapped):
    """What runs anew in the backward pass sees the call of its own forward, which may not have been the last one."""

    @property
    def _gradient_checkpointing_func(self) -> Callable:
        """As transformers sets it, for what is to be run twice."""
        try:
            checkpoint = self.__dict__["_gradient_checkpointing_func"]
        except KeyError as error:
            raise AttributeError("_gradient_checkpointing_func") from error
        return functools.partial(_checkpoint, checkpoint, self.__dict__[SLOT].context)

    @_gradient_checkpointing_func.setter
    def _gradient_checkpointing_func(self, checkpoint: Callable) -> None:
        self.__dict__["_gradient_checkpointing_func"] = checkpoint


def _checkpoint(checkpoint: Callable, context: Context, run: Callable, *args: Any, **kwargs: Any) -> Any:
    """`checkpoint(run, ...)`, where `run` sees the call of now each time."""
    if torch.compiler.is_compiling():  # the graph knows itself what it runs anew
        return checkpoint(run, *args, **kwargs)
    call = None if context.call is None else context.call.again()
    ran = False

    def recalling(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        if not ran:
            ran = True
            return run(*args, **kwargs)
        with context.recalling(call):
            return run(*args, **kwargs)

    return checkpoint(recalling, *args, **kwargs)


class _PartCall(_Checkpointed):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        block: Part = self.__dict__[SLOT]
        call, tape = block.context.call, block.context.tape
        if block.runs_anew:
            x = args[0] if args else kwargs["hidden_states"]
            if call is None and not block.context.inside and torch._C._current_graph_task_id() != -1:
                # By a wrapper around the block: the storage of what goes in is the one thing that is as it was.
                with block.context.recalling(getattr(x.untyped_storage(), SLOT, None)):
                    return self(*args, **kwargs)
            if call is not None and self.training and not torch.compiler.is_compiling():  # type: ignore[attr-defined]
                setattr(x.untyped_storage(), SLOT, replace(call.again(), noted={}))
        if block.notes_input and call is not None:
            call.noted[block.path] = (args[0] if args else kwargs["hidden_states"]).detach()
        if tape is None:
            out = super().__call__(*args, **kwargs)  # type: ignore[misc]
        else:
            out = tape.run(block.path, super().__call__, *args, **kwargs)  # type: ignore[misc]
        if block.notes_output and call is not None:
            states = getattr(out, "last_hidden_state", None)
            call.noted[block.path + OUTPUT] = (states if states is not None else out[0]).detach()
        return out


class _HeadCall(_Swapped):
    """The output embeddings: of `[B, T, d]` they get only the tokens that are wanted, as `[1, n, d]`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # What is compiled keeps its shapes.
        wanted = None if torch.compiler.is_compiling() else self.__dict__[SLOT].wanted
        if wanted is not None:
            x, *rest = args
            args = x[:, -wanted.shape[1] :][wanted.to(x.device)][None], *rest
        return super().__call__(*args, **kwargs)  # type: ignore[misc]


def _undisturbed(method: Callable) -> Callable:
    """Nothing that a memory holds changes while the method runs, unless it has nothing to do with memories."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        slots: Attached = self.__dict__[SLOT]
        # What is compiled as a whole cannot take locks.
        if torch.compiler.is_compiling() or slots.context.inside or slots.context.silent:
            return method(self, *args, **kwargs)
        with slots.gate.running():
            return method(self, *args, **kwargs)

    return run


class EntryCall(_Checkpointed):
    _parameter_names: tuple[str, ...]

    @_undisturbed
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        slots: Attached = self.__dict__[SLOT]
        context = slots.context
        if context.inside or context.silent or (slots.idle and context.stand_ins is None):
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        slots.follow_sites()
        inputs = {**dict(zip(self._parameter_names, args, strict=False)), **kwargs}
        call = next_call(slots, inputs)
        context.inside, context.call = True, call
        try:
            out = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            context.inside, context.call = False, None
        if call is not None and context.watched is not None:
            context.watched.append(call)
        cache = compat.cache_after(out, inputs)
        if call is not None and cache is not None and not (context.generations and context.generations[-1].prepares):
            caches.leave(cache, caches.note_after(call))
        return out


class _GenerateCall(EntryCall):
    @_undisturbed
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        slots: Attached = self.__dict__[SLOT]
        if slots.stage is None:
            return super().__call__(*args, **kwargs)
        inputs = {**dict(zip(self._parameter_names, args, strict=False)), **kwargs}
        staged = slots.staged(inputs, slots.context.lengths, False)
        if staged is None:
            return super().__call__(*args, **kwargs)
        with slots.context.setting(lengths=staged.lengths, decided=staged.decisions):
            out = staged.restore(super().__call__(**{**staged.inputs, "return_dict": True}))
        return out if compat.returns_dict(self, inputs) else out.to_tuple()

    @_undisturbed
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        slots: Attached = self.__dict__[SLOT]
        context = slots.context
        if context.silent or (slots.idle and context.stand_ins is None):
            return super().generate(inputs, *args, **kwargs)  # type: ignore[misc]
        slots.move_along()
        given = inputs if inputs is not None else kwargs.pop("input_ids", None)
        moved, kwargs = padding_to_the_left(given, kwargs)
        said = said_before(self, slots, moved, kwargs)
        lengths = None if said is None or moved is None else prompt_lengths(moved, kwargs) - said.tokens
        staged = slots.staged({"input_ids": moved, **kwargs}, lengths, True)
        if staged is not None:
            kwargs = staged.generating(self)
            moved = kwargs.pop("input_ids")
        generation = generation_of(moved, kwargs, said)
        if staged is not None:
            generation.decisions = generation.decisions.joined(staged.decisions)
        context.generations.append(generation)
        try:
            out = super().generate(moved, *args, **kwargs)  # type: ignore[misc]
        finally:
            context.generations.pop()
        note_generated(generation, out, 0 if moved is None else moved.shape[1], kwargs)
        if staged is not None:
            staged.leave(compat.cache_after(out, kwargs))
        return out if moved is given else with_prompt(out, cast(Tensor, given), cast(Tensor, moved).shape[1])

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        model_inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)  # type: ignore[misc]
        slots: Attached = self.__dict__[SLOT]
        if slots.context.generations and not slots.context.silent:
            generation = slots.context.generations[-1]
            mask = kwargs.get("attention_mask")
            generation.prepares = True
            generation.pending = (prepared_call(generation, input_ids, mask, model_inputs, slots),)
        return model_inputs

    def refuse_packed_rows(self, name: str) -> None:
        """Refuse to generate from rows that hold several texts, where edits are to act."""
        if not self.__dict__[SLOT].idle:
            raise HostError(
                f"{name}: continuous batching packs several texts into one row, in which edits cannot be told apart; "
                "use generate(), or unwrap the model first"
            )


def _subclass(mixin: type[_Swapped], cls: Any) -> type:
    return disguised(mixin, cls, _parameter_names=compat.parameter_names(cls.forward))


@functools.cache
def site_class(cls: Any) -> type:
    return _subclass(_SiteCall, cls)


@functools.cache
def part_class(cls: Any) -> type:
    return _subclass(_PartCall, cls)


@functools.cache
def head_class(cls: Any) -> type:
    return _subclass(_HeadCall, cls)


@functools.cache
def entry_class(cls: Any) -> type:
    return _subclass(EntryCall, cls)


@functools.cache
def generating_class(cls: Any) -> type:
    made = _subclass(_GenerateCall, cls)
    for name in ("generate", "prepare_inputs_for_generation"):
        setattr(made, name, _with_signature_of(getattr(cls, name), getattr(_GenerateCall, name)))
    for name in compat.CONTINUOUS_BATCHING:
        if hasattr(cls, name):
            setattr(made, name, _refusing(getattr(cls, name), name))
    return made


def _refusing(original: Callable, name: str) -> Callable:
    """A method that is refused where edits are held."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.refuse_packed_rows(name)
        return original(self, *args, **kwargs)

    return method


def _with_signature_of(original: Callable, ours: Callable) -> Callable:
    """`ours`, looking like `original`: transformers inspects the arguments of these methods."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(self, *args, **kwargs)

    return method
