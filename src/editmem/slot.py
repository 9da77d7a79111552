"""Attach memories to a model by swapping classes, and take them off without a trace.

Three kinds of module are swapped for a cached subclass of their own class: the *site*, whose memories run
on its output; the *block* around it, which notes what went in; and the *entry* (the model that has
`generate`, and the decoder inside it), which works out the `Call` of each forward. The subclass overrides
`__call__`, so `state_dict` keys, `isinstance`, `.weight`, hooks, PEFT and accelerate are as before; setting
the class back is the whole of detaching.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from editmem import caches, compat
from editmem.call import (
    NO_TOKEN,
    PADDING,
    Call,
    Context,
    Generation,
    call_of_forward,
    call_of_generation,
    real_tokens,
)
from editmem.embeddings import TokenLookup
from editmem.errors import HostError
from editmem.gate import Gate
from editmem.modes import lasting

_SLOT = "_editmem_slot"
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
        self.model: nn.Module | None = None
        self.lookup = TokenLookup()
        self.reader: Any = None
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

    def read(self, inputs: dict[str, Any], lengths: Tensor | None, generating: bool) -> Any:
        """What a memory that reads prompts makes of them; None where there is none, or nothing is to be read."""
        context = self.context
        busy = context.inside or context.silent or context.generations or context.stand_ins or context.route
        return None if self.reader is None or busy or self.idle else self.reader.read(inputs, lengths, generating)

    def attach_site(self, path: str, module: nn.Module, memory: SiteMemory) -> None:
        """Let `memory` run on the output of `module`, after the memories that are there already."""
        if path not in self.sites:
            self.sites[path] = Site(path, self)
            self._place(path, module, _site_class, self.sites[path])
        self.sites[path].memories.append(memory)

    def attach_block(self, path: str, module: nn.Module, notes: bool = True) -> None:
        """Let the block at `path` remember its call where it is run anew, and note in it what goes in if `notes`."""
        if (block := self._attach_part(path, module)) is not None:
            block.runs_anew = True
            block.notes_input |= notes

    def attach_eye(self, path: str, module: nn.Module) -> None:
        """Let the vision tower at `path` note in the call what comes out of it."""
        if (part := self._attach_part(path, module)) is not None:
            part.notes_output = True

    def attach_taped(self, path: str, module: nn.Module) -> None:
        """Let the module at `path` return what a `Tape` has of it, where one is played."""
        self._attach_part(path, module)

    def _attach_part(self, path: str, module: nn.Module) -> "Block | None":
        """What is kept of the module at `path`; None where it is a site."""
        if _SLOT not in module.__dict__:
            self._place(path, module, _block_class, Block(path, self.context))
        state = module.__dict__[_SLOT]
        return state if isinstance(state, Block) else None

    def attach_entries(self, model: nn.Module, decoder: nn.Module) -> None:
        """Let `model` (with `generate`), its body and the `decoder` in it work out the call of each forward."""
        self.model, self.embedding = model, model.get_input_embeddings  # type: ignore[assignment]
        self._swap(model, _generating_class(cast(Any, type(model))), self)
        for part in {cast(nn.Module, model.base_model), decoder} - {model}:
            self._swap(part, _entry_class(cast(Any, type(part))), self)

    def _place(self, path: str, module: nn.Module, made_of: Callable, state: Any) -> None:
        self._swap(module, made_of(type(module)), state)
        self.placed[path] = module, made_of

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
                state = module.__dict__[_SLOT]
                _swap_back(module, _without_ours(type(module), module))
                self.modules.remove(module)
                self._place(path, here, made_of, state)

    def _swap(self, module: nn.Module, cls: type, state: Any) -> None:
        self.modules.append(module)  # first: `detach` takes off what an interruption leaves
        module.__dict__[_SLOT] = state
        module.__class__ = cls

    def detach(self) -> None:
        """Give every module its own class back.

        Raises:
            HostError: if a class that was put on top of ours cannot do without it; nothing is changed then.
        """
        with self.gate.changing():
            self._detach()

    def _detach(self) -> None:
        classes = [_without_ours(type(module), module) for module in self.modules]
        for module, cls in zip(self.modules, classes, strict=True):
            _swap_back(module, cls)
        self.modules.clear()
        self.placed.clear()
        self.sites.clear()
        self.model = self.embedding = self.reader = None


def _swap_back(module: nn.Module, cls: type) -> None:
    module.__class__ = cls
    module.__dict__.pop(_SLOT, None)


def _without_ours(cls: type, module: nn.Module) -> type:
    """The class of a module without ours in it: others, as `parametrize` or `fully_shard`, may have made theirs of it.

    Raises:
        HostError: if theirs cannot be made anew on top of the host's own.
    """
    if not hasattr(cls, "_host_class"):
        return cls
    if "_host_class" in vars(cls):
        return vars(cls)["_host_class"]
    bases = tuple(_without_ours(base, module) for base in cls.__bases__)
    if any("__class__" in getattr(value, "__code__", _NO_CODE).co_freevars for value in vars(cls).values()):
        raise HostError(
            f"the class of a {cls._host_class.__name__} in the model was replaced by {cls.__qualname__} after "  # type: ignore[attr-defined]
            "wrapping, and cannot be taken apart; undo that first, then unwrap"
        )
    names = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls)(cls.__name__, bases, names)


@dataclass
class Block:
    """A module of the host of which the call notes what went in (blocks) or came out (vision towers), if anything."""

    path: str
    context: Context
    notes_input: bool = False
    notes_output: bool = False
    runs_anew: bool = False


class Site:
    """One module of the host and the memories that run on its output, in order."""

    def __init__(self, path: str, slots: Slots) -> None:
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
        x, result = x.view(*rows, x.shape[-1]), base.view(*rows, base.shape[-1])
        for memory in (call.stand_ins[self.path],) if self.path in call.stand_ins else self.memories:
            result = memory(x, result, call)
        result = result.view_as(base)
        return result if rest is None else (result, *rest)


def slots_of(model: nn.Module) -> Slots | None:
    """What is attached to the model or to a model inside it, or None."""
    for module in model.modules():
        if isinstance(state := module.__dict__.get(_SLOT), Slots):
            return state
    return None


class _Swapped:
    """What all swapped classes share: copying works, pickling the whole model is refused."""

    def __deepcopy__(self, memo: dict) -> Any:
        clone = self.__class__.__new__(self.__class__)
        memo[id(self)] = clone
        clone.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return clone

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise HostError(
            f"a whole {type(self).__name__} with editmem memories attached cannot be pickled; save the host with "
            "model.save_pretrained(folder) or its state_dict(), and the memory with editor.save_pretrained(folder)"
        )


class _SiteCall(_Swapped):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = super().__call__(*args, **kwargs)  # type: ignore[misc]
        x = args[0] if args else kwargs["hidden_states"]
        return self.__dict__[_SLOT].run(x, out)

    def _apply(self, fn: Callable, recurse: bool = True) -> Any:
        site: Site = self.__dict__[_SLOT]
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
        return functools.partial(_checkpoint, checkpoint, self.__dict__[_SLOT].context)

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


class _BlockCall(_Checkpointed):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        block: Block = self.__dict__[_SLOT]
        call, tape = block.context.call, block.context.tape
        if block.runs_anew:
            x = args[0] if args else kwargs["hidden_states"]
            if call is None and not block.context.inside and torch._C._current_graph_task_id() != -1:
                # By a wrapper around the block: the storage of what goes in is the one thing that is as it was.
                with block.context.recalling(getattr(x.untyped_storage(), _SLOT, None)):
                    return self(*args, **kwargs)
            if call is not None and self.training and not torch.compiler.is_compiling():  # type: ignore[attr-defined]
                setattr(x.untyped_storage(), _SLOT, replace(call.again(), residual={}))
        if block.notes_input and call is not None:
            call.residual[block.path] = (args[0] if args else kwargs["hidden_states"]).detach()
        if tape is None:
            out = super().__call__(*args, **kwargs)  # type: ignore[misc]
        else:
            out = tape.run(block.path, super().__call__, *args, **kwargs)  # type: ignore[misc]
        if block.notes_output and call is not None:
            states = getattr(out, "last_hidden_state", None)
            call.sights[block.path] = (states if states is not None else out[0]).detach()
        return out


def _undisturbed(method: Callable) -> Callable:
    """Nothing that a memory holds changes while the method runs, unless it has nothing to do with memories."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        slots: Slots = self.__dict__[_SLOT]
        # What is compiled as a whole cannot take locks.
        if torch.compiler.is_compiling() or slots.context.inside or slots.context.silent:
            return method(self, *args, **kwargs)
        with slots.gate.running():
            return method(self, *args, **kwargs)

    return run


class _EntryCall(_Checkpointed):
    _parameter_names: tuple[str, ...]

    @_undisturbed
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        slots: Slots = self.__dict__[_SLOT]
        context = slots.context
        if context.inside or context.silent or (slots.idle and context.stand_ins is None):
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        slots.move_along()
        inputs = {**dict(zip(self._parameter_names, args, strict=False)), **kwargs}
        call = _next_call(slots, inputs)
        context.inside, context.call = True, call
        try:
            out = super().__call__(*args, **kwargs)  # type: ignore[misc]
        finally:
            context.inside, context.call = False, None
        if call is not None and context.watched is not None:
            context.watched.append(call)
        cache = compat.cache_among(inputs) or compat.cache_of(out)
        if call is not None and cache is not None and not (context.generations and context.generations[-1].prepares):
            caches.leave(cache, caches.note_after(call))
        return out


class _GenerateCall(_EntryCall):
    @_undisturbed
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        slots: Slots = self.__dict__[_SLOT]
        if slots.reader is None:
            return super().__call__(*args, **kwargs)
        inputs = {**dict(zip(self._parameter_names, args, strict=False)), **kwargs}
        reading = slots.read(inputs, slots.context.lengths, False)
        if reading is None:
            return super().__call__(*args, **kwargs)
        with slots.context.setting(lengths=reading.lengths, route=reading.route):
            out = reading.restore(super().__call__(**{**reading.inputs, "return_dict": True}))
        return out if compat.returns_dict(self, inputs) else out.to_tuple()

    @_undisturbed
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        slots: Slots = self.__dict__[_SLOT]
        context = slots.context
        if context.silent or (slots.idle and context.stand_ins is None):
            return super().generate(inputs, *args, **kwargs)  # type: ignore[misc]
        given = inputs if inputs is not None else kwargs.pop("input_ids", None)
        moved, kwargs = _padding_to_the_left(given, kwargs)
        said = _said_before(self, slots, moved, kwargs)
        lengths = None if said is None or moved is None else _prompt_lengths(moved, kwargs) - said.tokens
        reading = slots.read({"input_ids": moved, **kwargs}, lengths, True)
        if reading is not None:
            kwargs = reading.generating(self)
            moved = kwargs.pop("input_ids")
        generation = _generation_of(moved, kwargs, said)
        for key, state in ({} if reading is None else reading.route).items():
            generation.carry[key] = {**generation.carry.get(key, {}), **state}
        context.generations.append(generation)
        try:
            out = super().generate(moved, *args, **kwargs)  # type: ignore[misc]
        finally:
            context.generations.pop()
        _note_generated(generation, out, 0 if moved is None else moved.shape[1], kwargs)
        if reading is not None:
            reading.leave(compat.cache_of(out) or compat.cache_among(kwargs))
        return out if moved is given else _with_prompt(out, cast(Tensor, given), cast(Tensor, moved).shape[1])

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        model_inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)  # type: ignore[misc]
        slots: Slots = self.__dict__[_SLOT]
        if slots.context.generations and not slots.context.silent:
            generation = slots.context.generations[-1]
            mask = kwargs.get("attention_mask")
            generation.prepares = True
            generation.pending = (_prepared_call(generation, input_ids, mask, model_inputs, slots),)
        return model_inputs

    def refuse_packed_rows(self, name: str) -> None:
        """Refuse to generate from rows that hold several texts, where edits are to act."""
        if not self.__dict__[_SLOT].idle:
            raise HostError(
                f"{name}: continuous batching packs several texts into one row, in which edits cannot be told apart; "
                "use generate(), or unwrap the model first"
            )


def _next_call(slots: Slots, inputs: dict[str, Any]) -> Call | None:
    context = slots.context
    if any(inputs.get(name) is not None for name in compat.PACKED):
        raise HostError("packed rows, which hold several texts each, are not supported while edits are held")
    if context.generations and context.generations[-1].pending is not None:
        generation = context.generations[-1]
        (call,), generation.pending = generation.pending, None  # type: ignore[misc]
        given = inputs.get("input_ids") if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
        call = call if call is None or given is None else call.widened(given.shape[1])
    else:
        if inputs.get("input_ids") is None and inputs.get("inputs_embeds") is not None:
            inputs = {**inputs, "input_ids": slots.tokens_of(inputs["inputs_embeds"])}
        call = _call_by_hand(slots, inputs)
    if call is not None and context.stand_ins is not None:
        call.stand_ins = context.stand_ins
    return call


def _call_by_hand(slots: Slots, inputs: dict[str, Any]) -> Call:
    """The call of a forward outside of `generate`, going on from what is known of its cache."""
    given = inputs.get("input_ids")
    given = given if given is not None else inputs.get("inputs_embeds")
    cache, note, before = compat.cache_among(inputs), None, None
    if cache is not None and given is not None:
        note = caches.note_on(cache, given.shape[0])
        before = caches.text_in(cache, note, given)
    carry = None if note is None else note.carry
    call = call_of_forward(inputs, carry, before, slots.window, slots.context.lengths)
    for key, state in slots.context.route.items():
        call.carry[key] = {**call.carry.get(key, {}), **state}
    return call


@dataclass(frozen=True)
class _Said:
    """Answers that prompts end in the middle of.

    Attributes:
        tokens: int64 `[B]`, how many of each row's last tokens are the beginning of an answer.
        edits: by memory, int64 `[B]`, the entry that says it, -1 for none.
    """

    tokens: Tensor
    edits: Mapping[str, Tensor]


def _prompt_lengths(ids: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    return real_tokens(kwargs.get("attention_mask"), (ids.shape[0], ids.shape[1]), ids.device).sum(1)


def _said_before(model: Any, slots: Slots, ids: Tensor | None, kwargs: Mapping[str, Any]) -> _Said | None:
    """Whether prompts end in the middle of an answer, as where an answer that was cut off is gone on with.

    The text is looked at again as if the prompt had ended before: in most cases no text ends like an answer begins, and
    nothing is run.
    """
    mask = kwargs.get("attention_mask")
    whole = ids is not None and (not isinstance(mask, Tensor) or mask.shape == ids.shape)
    if ids is None or not whole or slots.context.stand_ins is not None or ids.shape[1] < 2:
        return None
    tail = torch.where(real_tokens(mask, (ids.shape[0], ids.shape[1]), ids.device), ids.long(), PADDING)
    tail = tail[:, 1:][:, -(slots.window - 1) :] if slots.window > 1 else tail[:, :0]
    begun = torch.zeros_like(tail, dtype=torch.bool)
    for memory in slots.memories():
        begun |= memory.begun(tail)
    if not bool(begun.any()):
        return None
    taken, edits = torch.zeros_like(tail[:, 0]), dict[str, Tensor]()
    for count in range(tail.shape[1], 0, -1):  # the earliest answer that is still being said
        candidate = begun[:, count - 1] & (taken == 0)
        if bool(candidate.any()):
            for key, edit in _still_said(model, slots, ids, kwargs, torch.where(candidate, count, taken)).items():
                acts = candidate & (edit >= 0)
                edits[key] = torch.where(acts, edit, edits.get(key, torch.full_like(edit, -1)))
                taken = torch.where(acts, count, taken)
    return _Said(taken, edits) if edits and bool(taken.any()) else None


def _still_said(model: Any, slots: Slots, ids: Tensor, kwargs: Mapping[str, Any], said: Tensor) -> dict[str, Tensor]:
    """By memory the entry that acts at the end of each text, -1 for none, if prompts ended `said` tokens before."""
    taken = model._parameter_names
    inputs = {name: value for name, value in compat.without_cache(kwargs).items() if name in taken and name != "labels"}
    options = {"use_cache": False, "logits_to_keep": 1}
    inputs |= {name: value for name, value in options.items() if name in taken}
    watched: list[Call] = []
    lengths = _prompt_lengths(ids, kwargs) - said
    with torch.no_grad(), slots.context.setting(generations=[], lengths=lengths, watched=watched):
        model(input_ids=ids, **inputs)
    states = {key: state for call in watched for key, state in call.carry.items() if "step" in state}
    return {key: torch.where(state["step"] >= said, state["edit"], -1) for key, state in states.items()}


def _generation_of(ids: Tensor | None, kwargs: dict[str, Any], said: _Said | None) -> Generation:
    mask, embeds = kwargs.get("attention_mask"), kwargs.get("inputs_embeds")
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        mask = None
    if mask is not None:
        columns = mask.shape[1]
    elif embeds is not None:
        columns = embeds.shape[1]
    else:
        columns = 1 if ids is None else ids.shape[1]  # without a prompt, `generate` starts from one token
    generation = Generation(columns, mask)
    if ids is None or ids.shape[1] > columns:
        return generation
    cache = compat.cache_among(kwargs)
    note = None if cache is None else caches.note_on(cache, ids.shape[0])
    text = nn.functional.pad(ids.long(), (columns - ids.shape[1], 0), value=NO_TOKEN)
    if note is not None:
        generation.carry = {key: dict(state) for key, state in note.carry.items()}
        if note.text is not None and note.text.shape[1] == columns - ids.shape[1]:
            text = torch.cat([note.text.to(ids.device), ids.long()], 1)
    generation.text = text if mask is None else torch.where(mask.to(text.device).bool(), text, PADDING)
    if said is not None:
        generation.said = said.tokens
        for key, edit in said.edits.items():
            generation.carry[key] = {**generation.carry.get(key, {}), "edit": edit}
    return generation


def _note_generated(generation: Generation, out: Any, given: int, kwargs: Mapping[str, Any]) -> None:
    """Note on the cache that `generate` leaves what it holds; `given` is how many columns of ids it was given."""
    cache = compat.cache_of(out) or compat.cache_among(kwargs)
    length = None if cache is None else compat.cache_length(cache)
    if cache is None or length is None or generation.text is None or getattr(out, "beam_indices", None) is not None:
        return
    sequences = out if isinstance(out, Tensor) else out.sequences
    rows = sequences.shape[0]
    if rows % generation.text.shape[0]:
        return
    text = generation.text.repeat_interleave(rows // generation.text.shape[0], dim=0)
    text = torch.cat([text, sequences[:, given:].to(text.device, torch.long)], 1)
    note = caches.Note(text, generation.carry).aligned(length)
    if note is not None:
        caches.leave(cache, note)


def _padding_to_the_left(ids: Tensor | None, kwargs: dict[str, Any]) -> tuple[Tensor | None, dict[str, Any]]:
    """Prompts with their padding on the left: `generate` goes on from the last column, be it padding or not.

    All that has a value for each token moves with them: embeddings, token types, masks of pictures.
    """
    mask = kwargs.get("attention_mask")
    if ids is None or not isinstance(mask, Tensor) or mask.shape != ids.shape or "position_ids" in kwargs:
        return ids, kwargs
    if bool(mask[:, -1].all()):
        return ids, kwargs
    order = mask.bool().to(torch.uint8).argsort(dim=1, stable=True)

    def moved(name: str, value: Any) -> Any:
        if not compat.is_per_token(name, value, mask.shape):
            return value
        return value.take_along_dim(order.view(*order.shape, *[1] * (value.ndim - 2)), dim=1)

    return moved("input_ids", ids), {name: moved(name, value) for name, value in kwargs.items()}


def _with_prompt(out: Any, prompt: Tensor, columns: int) -> Any:
    """What `generate` returned, with the prompt as it was given in place of the `columns` that the host read."""
    sequences = out if isinstance(out, Tensor) else out.sequences
    rows = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0)
    sequences = torch.cat([rows.to(sequences.device), sequences[:, columns:]], 1)
    if isinstance(out, Tensor):
        return sequences
    out.sequences = sequences
    return out


def _prepared_call(
    generation: Generation, ids: Tensor, mask: Tensor | None, model_inputs: dict[str, Any], slots: Slots
) -> Call | None:
    tokens = model_inputs.get("input_ids")
    if tokens is None:
        tokens = slots.tokens_of(embeds := model_inputs["inputs_embeds"])
    new = tokens.shape[1] if tokens is not None else embeds.shape[1]
    columns = mask.shape[1] if isinstance(mask, Tensor) and mask.ndim == 2 else ids.shape[1]
    if columns < generation.columns and mask is None:  # a chunk of the prompt
        columns = new + (compat.cache_length(compat.cache_among(model_inputs)) or 0)
    if generation.prompt_mask is None and isinstance(mask, Tensor) and mask.ndim == 2:
        known = mask[:, : generation.columns]
        generation.prompt_mask = nn.functional.pad(known, (0, generation.columns - known.shape[1]), value=1)
    return call_of_generation(generation, ids, tokens, new, columns, slots.window)


def _subclass(mixin: type, cls: type) -> type:
    """A subclass that passes for `cls`: checkpoints and pipelines go by the name of the class."""
    names: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    names["_host_class"] = cls
    names["_parameter_names"] = compat.parameter_names(cls.forward)  # type: ignore[attr-defined]
    return type(cls.__name__, (mixin, cls), names)


@functools.cache
def _site_class(cls: Any) -> type:
    return _subclass(_SiteCall, cls)


@functools.cache
def _block_class(cls: Any) -> type:
    return _subclass(_BlockCall, cls)


@functools.cache
def _entry_class(cls: Any) -> type:
    return _subclass(_EntryCall, cls)


@functools.cache
def _generating_class(cls: Any) -> type:
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
