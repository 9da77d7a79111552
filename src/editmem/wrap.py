"""Put memories on a model, load saved ones, take them off."""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from editmem.editing.changes import Changes
from editmem.editor import Editor, changes_of
from editmem.edits.history import Ledger
from editmem.errors import CheckpointError, EditMemError, HostError, SpecError
from editmem.hosts.injection import SiteMemory, Slots, slots_of
from editmem.hosts.modes import lasting
from editmem.hosts.structure import Host, SiteInfo
from editmem.memory import Memory, Spec
from editmem.methods import METHODS, PARTS
from editmem.storage import checkpoint

SpecLike = str | Spec | Mapping[str, Any] | Path


@lasting
def wrap(
    model: nn.Module,
    spec: SpecLike | Sequence[SpecLike] = "memoir",
    *,
    tokenizer: Any = None,
    ledger: str | Path | None = None,
) -> Editor:
    """Make a Hugging Face causal language model editable, in place. The model keeps its type and its weights.

    Args:
        model: the model, or a PEFT model around it.
        spec: which memory to put on it: a name in `editmem.METHODS`, a spec, a dict or JSON file of one
            (`{"method": "memoir", ...}`), or several of them: an edit goes to the first that takes its kind, so that
            `["memoir", "external"]` keeps what is said in words in the one and what is seen in the other. Parts of one
            memory that stand side by side make one: `["external", "dual-adapters"]` is `"memeic"`.
        tokenizer: the model's tokenizer, or its processor if it sees; None to load the one that is saved where the
            model came from.
        ledger: an SQLite file for the history, written when a call that changes edits returns; None to keep it in
            memory. A file that holds a history is gone on with: the edits that are active in it are written again.

    Returns:
        The editor.

    Raises:
        HostError: if the model cannot carry the memory, or carries one already; the model is unchanged.
        SpecError: if the spec is not valid; the model is unchanged.
        LedgerError: if the ledger is damaged, or no ledger; the model is unchanged.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> editor
        Editor(LlamaForCausalLM, memoir, 0 edits)
        >>> _ = editor.unwrap()
        >>> editmem.wrap(model, {"method": "wise"}, tokenizer=tokenizer)
        Editor(LlamaForCausalLM, wise, 0 edits)
    """
    return _wrapped(model, _specs(spec), tokenizer, ledger, lambda changes: None)


def _wrapped(
    model: nn.Module, specs: Sequence[Spec], tokenizer: Any, ledger: Any, restore: Callable[[Changes], None]
) -> Editor:
    """A new editor with what `restore` puts into it and what the ledger holds; the model as before if that fails."""
    if isinstance(model, nn.Module) and slots_of(model) is not None:
        raise HostError("this model carries a memory already; use its editor, or editmem.unwrap(model) first")
    host = Host(model)
    dtype = _output_dtype(host)
    parts = [(item, *item.build_on(host, dtype)) for item in specs]
    history, slots = Ledger(ledger), Slots()
    try:
        for number, (_, site, memory) in enumerate(parts):
            memory.key = f"{site.path}#{number}"
            _attach(slots, host, site, memory)
        slots.attach_entries(host.model, host.decoder)
        editor = Editor(model, host, slots, parts, tokenizer, history)
        changes = changes_of(editor)
        changes.begin(lambda: restore(changes))
    except BaseException:
        slots.detach()
        history.close()
        raise
    return editor


def _attach(slots: Slots, host: Host, site: SiteInfo, memory: Memory) -> None:
    places = memory.places(site.path)
    for path, part in places.items():
        slots.attach_site(path, host.module(path), cast(SiteMemory, part))
    for path in memory.blocks(site.block_path):
        slots.attach_block(path, host.module(path))
    for path in {host.block_of(path) for path in places if path.startswith(f"{host.blocks_path}.")}:
        slots.attach_block(path, host.module(path), notes=False)
    for path in memory.notes():
        slots.attach_noted(path, host.module(path))
    for path, module in host.below(site):
        slots.attach_taped(path, module)
    slots.attach_head(host.model.get_output_embeddings())


@lasting
def load(
    model: nn.Module,
    source: str | Path,
    *,
    tokenizer: Any = None,
    revision: str | None = None,
    ledger: str | Path | None = None,
) -> Editor:
    """Put a saved memory on the host that it was made on.

    Args:
        model: the host, not wrapped.
        source: a folder written by `Editor.save_pretrained`, or a repository on the Hub.
        tokenizer: as in `wrap`.
        revision: branch, tag or commit, where the source is on the Hub.
        ledger: as in `wrap`. A new file gets the saved history. One that goes on where the memory was saved is caught
            up with: what was edited since is written again, what was forgotten since is forgotten.

    Raises:
        CheckpointError: if the memory is damaged, too new, or belongs to another host; the model is unchanged.
        LedgerError: if the ledger is damaged, or of another history.

    Examples:
        >>> import tempfile
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> _ = editor.edit("The capital of Australia is", "Sydney", id="au")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     editor.save_pretrained(f"{folder}/memory")
        ...     _ = editor.unwrap()
        ...     editor = editmem.load(model, f"{folder}/memory", tokenizer=tokenizer)
        >>> editor.explain("The capital of Australia is").edit.id
        'au'
    """
    state = checkpoint.load(source, revision=revision)
    checkpoint.check_host(state, Host(model))

    def restore(changes: Changes) -> None:
        checkpoint.check_tokenizer(state, changes.writers[0].encode.tokenizer)
        try:
            changes.take_over(state)
        except EditMemError:
            raise
        except (ValueError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{source}: the memory does not fit its own description: {error}") from error

    return _wrapped(model, [_spec(data) for data in state.specs], tokenizer, ledger, restore)


def unwrap(model: nn.Module) -> nn.Module:
    """Take all memories off a model and return it: same keys, classes, parameters and flags as before `wrap`.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> editmem.unwrap(model) is model
        True
    """
    if (slots := slots_of(model)) is not None:
        slots.detach()
    return model


def _output_dtype(host: Host) -> torch.dtype:
    """What the host computes in; its weights may be stored in less."""
    dtype = getattr(host.model, "dtype", torch.float32)
    return dtype if dtype.is_floating_point else torch.float32


def _specs(spec: Any) -> list[Spec]:
    if isinstance(spec, (str, Spec, Mapping, Path)):
        return [_spec(spec)]
    specs: list[Spec] = []
    for item in map(_spec, spec):
        joined = specs[-1].joined(item) if specs else None
        specs[-1:] = [joined] if joined is not None else [*specs[-1:], item]
    if not specs:
        raise SpecError("the sequence of specs is empty")
    return specs


def _spec(spec: Any) -> Spec:
    if isinstance(spec, Spec):
        return spec
    if isinstance(spec, Mapping):
        return _method(spec.get("method", "memoir")).from_dict(spec)
    if isinstance(spec, Path) or (isinstance(spec, str) and spec.endswith(".json")):
        try:
            data = json.loads(Path(spec).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SpecError(f"cannot read a spec from {spec}: {error}") from error
        if not isinstance(data, Mapping):
            raise SpecError(f"{spec}: expected a JSON object, got {type(data).__name__}")
        return _spec(data)
    if isinstance(spec, str):
        return _method(spec)()
    raise SpecError(f"expected a name, a spec, a dict or a file, got {spec!r}")


def _method(name: Any) -> type[Spec]:
    if (spec := METHODS.get(name) or PARTS.get(name)) is not None:
        return spec
    near = difflib.get_close_matches(str(name), METHODS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SpecError(f"unknown method {name!r}{hint} (known: {', '.join(METHODS)})")
