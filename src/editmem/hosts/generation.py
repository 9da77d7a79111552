"""Which call a forward gets: inside of `generate`, where the prompt's end is known, and outside, by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from editmem.errors import HostError
from editmem.hosts import caches, compat
from editmem.hosts.forward import (
    NO_TOKEN,
    PADDING,
    Call,
    Context,
    Generation,
    call_of_forward,
    call_of_generation,
    real_tokens,
)
from editmem.hosts.gate import Gate
from editmem.hosts.staged import RewritesPrompts, StagedPrompts


class Attached(Protocol):
    """What is attached to a model, as its swapped classes see it; see `injection.Slots`."""

    context: Context
    gate: Gate
    stage: RewritesPrompts | None

    @property
    def idle(self) -> bool: ...
    @property
    def window(self) -> int: ...
    def memories(self) -> Iterator[Any]: ...
    def tokens_of(self, embeds: Tensor) -> Tensor | None: ...
    def staged(self, inputs: dict[str, Any], lengths: Tensor | None, generating: bool) -> StagedPrompts | None: ...
    def follow_sites(self) -> None: ...
    def move_along(self) -> None: ...


def next_call(slots: Attached, inputs: dict[str, Any]) -> Call | None:
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


def _call_by_hand(slots: Attached, inputs: dict[str, Any]) -> Call:
    """The call of a forward outside of `generate`, going on from what is known of its cache."""
    given = inputs.get("input_ids")
    given = given if given is not None else inputs.get("inputs_embeds")
    cache, note, before = compat.cache_among(inputs), None, None
    if cache is not None and given is not None:
        note = caches.note_on(cache, given.shape[0])
        before = caches.text_in(cache, note, given)
    decisions = None if note is None else note.decisions
    call = call_of_forward(inputs, decisions, before, slots.window, slots.context.lengths)
    call.decisions = call.decisions.joined(slots.context.decided)
    return call


@dataclass(frozen=True)
class Said:
    """Answers that prompts end in the middle of.

    Attributes:
        tokens: int64 `[B]`, how many of each row's last tokens are the beginning of an answer.
        edits: by memory, int64 `[B]`, the entry that says it, -1 for none.
    """

    tokens: Tensor
    edits: Mapping[str, Tensor]


def prompt_lengths(ids: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    return real_tokens(kwargs.get("attention_mask"), (ids.shape[0], ids.shape[1]), ids.device).sum(1)


def said_before(model: Any, slots: Attached, ids: Tensor | None, kwargs: Mapping[str, Any]) -> Said | None:
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
    return Said(taken, edits) if edits and bool(taken.any()) else None


def _still_said(model: Any, slots: Attached, ids: Tensor, kwargs: Mapping[str, Any], said: Tensor) -> dict[str, Tensor]:
    """By memory the entry that acts at the end of each text, -1 for none, if prompts ended `said` tokens before."""
    taken = model._parameter_names
    inputs = {name: value for name, value in compat.without_cache(kwargs).items() if name in taken and name != "labels"}
    options = {"use_cache": False, "logits_to_keep": 1}
    inputs |= {name: value for name, value in options.items() if name in taken}
    watched: list[Call] = []
    lengths = prompt_lengths(ids, kwargs) - said
    with torch.no_grad(), slots.context.setting(generations=[], lengths=lengths, watched=watched):
        model(input_ids=ids, **inputs)
    states = {key: state for call in watched for key, state in call.decisions.items() if "step" in state}
    return {key: torch.where(state["step"] >= said, state["edit"], -1) for key, state in states.items()}


def generation_of(ids: Tensor | None, kwargs: dict[str, Any], said: Said | None) -> Generation:
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
        generation.decisions = note.decisions.copied()
        if note.text is not None and note.text.shape[1] == columns - ids.shape[1]:
            text = torch.cat([note.text.to(ids.device), ids.long()], 1)
    generation.text = text if mask is None else torch.where(mask.to(text.device).bool(), text, PADDING)
    if said is not None:
        generation.said = said.tokens
        generation.decisions = generation.decisions.joined({key: {"edit": edit} for key, edit in said.edits.items()})
    return generation


def note_generated(generation: Generation, out: Any, given: int, kwargs: Mapping[str, Any]) -> None:
    """Note on the cache that `generate` leaves what it holds; `given` is how many columns of ids it was given."""
    cache = compat.cache_after(out, kwargs)
    length = None if cache is None else compat.cache_length(cache)
    if cache is None or length is None or generation.text is None or getattr(out, "beam_indices", None) is not None:
        return
    sequences = out if isinstance(out, Tensor) else out.sequences
    rows = sequences.shape[0]
    if rows % generation.text.shape[0]:
        return
    text = generation.text.repeat_interleave(rows // generation.text.shape[0], dim=0)
    text = torch.cat([text, sequences[:, given:].to(text.device, torch.long)], 1)
    note = caches.Note(text, generation.decisions).aligned(length)
    if note is not None:
        caches.leave(cache, note)


def padding_to_the_left(ids: Tensor | None, kwargs: dict[str, Any]) -> tuple[Tensor | None, dict[str, Any]]:
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


def with_prompt(out: Any, prompt: Tensor, columns: int) -> Any:
    """What `generate` returned, with the prompt as it was given in place of the `columns` that the host read."""
    sequences = out if isinstance(out, Tensor) else out.sequences
    rows = prompt.repeat_interleave(sequences.shape[0] // prompt.shape[0], dim=0)
    sequences = torch.cat([rows.to(sequences.device), sequences[:, columns:]], 1)
    if isinstance(out, Tensor):
        return sequences
    out.sequences = sequences
    return out


def prepared_call(
    generation: Generation, ids: Tensor, mask: Tensor | None, model_inputs: dict[str, Any], slots: Attached
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
