"""Keep a memory in a folder or on the Hub: JSON for what people read, safetensors for the rest, never pickle."""

import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from editmem.edits.history import Event, check_history, parse_event
from editmem.errors import CheckpointError, HostError
from editmem.hosts.fingerprint import differences
from editmem.hosts.structure import Host
from editmem.storage import atomic as folders

FORMAT = 3
CONFIG, TENSORS, EDITS, CARD = "editmem_config.json", "memory.safetensors", "edits.jsonl", "README.md"


@dataclass(frozen=True)
class State:
    """Everything that is saved.

    Attributes:
        specs: the specs, as dicts.
        host: fingerprint of the host.
        tokenizer: fingerprint of the tokenizer.
        rows: of each memory, for each row the id of its edit; an edit has a row for each way in which it is rendered.
        events: the history.
        tensors: of each memory.
    """

    specs: list[dict[str, Any]]
    host: Mapping[str, Any]
    tokenizer: str
    rows: list[list[str]]
    events: list[Event]
    tensors: list[dict[str, Tensor]]

    @property
    def edits(self) -> list[str]:
        """The ids of the edits that are held."""
        return list(dict.fromkeys(edit for rows in self.rows for edit in rows))


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Equal for tokenizers that turn text into the same ids."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return hashlib.sha256(vocabulary.encode()).hexdigest()


def save(folder: Path, state: State) -> None:
    """Write the state to a folder, all or nothing: a crash at any moment leaves what was there before.

    Raises:
        CheckpointError: if the folder holds something that is not a saved memory.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / CONFIG).is_file())):
        raise CheckpointError(f"{folder} exists and is not a saved memory; choose another folder")
    folders.replace(folder, functools.partial(_write, state))


def _write(state: State, folder: Path) -> None:
    tensors = {
        f"{i}.{name}": t.detach().cpu().contiguous() for i, part in enumerate(state.tensors) for name, t in part.items()
    }
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    lines = [json.dumps(event.to_dict(), ensure_ascii=False, sort_keys=True) for event in state.events]
    (folder / EDITS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    config = {
        "format": FORMAT,
        "specs": state.specs,
        "host": dict(state.host),
        "tokenizer": state.tokenizer,
        "rows": state.rows,
        "sha256": {name: digest_of(folder / name) for name in (TENSORS, EDITS)},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(state), encoding="utf-8")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _card(state: State) -> str:
    methods = ", ".join(spec["method"] for spec in state.specs)
    return (
        "---\nlibrary_name: editmem\ntags:\n- model-editing\n---\n\n"
        f"# Edits for {state.host['architecture']}\n\n"
        f"{len(state.edits)} edits ({methods}), to be put on their host with `editmem.load(model, folder)`.\n"
        f"`{EDITS}` lists every edit and what became of it.\n"
    )


def load(source: str | Path, *, revision: str | None = None) -> State:
    """Read a saved state from a folder or from the Hub, and check that it is whole.

    Raises:
        CheckpointError: naming the file that is missing, damaged or of a newer format.
    """
    folder = folders.found(Path(source))
    if not folder.is_dir():
        folder = _download(str(source), revision)
    for name in (CONFIG, TENSORS, EDITS):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: {name} is missing; this is not a whole saved memory")
    config = _config(folder / CONFIG)
    for name, digest in config["sha256"].items():
        if digest_of(folder / name) != digest:
            raise CheckpointError(f"{folder / name} is damaged: its checksum is not the one in {CONFIG}")
    try:
        tensors: list[dict[str, Tensor]] = [{} for _ in config["specs"]]
        for key, tensor in load_file(folder / TENSORS).items():
            number, name = key.split(".", 1)
            tensors[int(number)][name] = tensor
        lines = (folder / EDITS).read_text(encoding="utf-8").split("\n")  # JSON leaves other line breaks as they are
        events = [parse_event(line) for line in lines if line]
        check_history(events)
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}") from error
    return State(config["specs"], config["host"], config["tokenizer"], config["rows"], events, tensors)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = config["format"]
        if not isinstance(version, int) or version > FORMAT:
            raise CheckpointError(
                f"{path}: format {version} is newer than this editmem reads ({FORMAT}); upgrade editmem"
            )
        if missing := {"specs", "host", "tokenizer", "rows", "sha256"} - set(config):
            raise CheckpointError(f"{path}: {sorted(missing)} is missing")
        if set(config["sha256"]) != {TENSORS, EDITS}:
            raise CheckpointError(f"{path}: expected checksums of {TENSORS} and {EDITS}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error!r}") from error
    return dict(config)


def _download(source: str, revision: str | None) -> Path:
    try:
        patterns = [CONFIG, TENSORS, EDITS]
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise CheckpointError(f"{source!r} is neither a folder nor the name of a repository on the Hub") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{source!r} is not a folder, and cannot be fetched from the Hub: {error}") from error


def push(
    repo_id: str,
    state: State,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
) -> str:
    """Save to a repository on the Hub, as `Editor.push_to_hub` says."""
    api = HfApi(token=token)
    url = api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None and not create_pr:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _write(state, Path(folder))
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or f"{len(state.edits)} edits",
            revision=revision,
            create_pr=create_pr,
        )
    return str(commit.pr_url if create_pr else url)


def check_host(state: State, host: Host) -> None:
    """Refuse a memory that was made on another host.

    Raises:
        CheckpointError: naming what differs.
        HostError: if the host's weights have no values.
    """
    try:
        found = differences(state.host, host)
    except HostError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the memory's description of its host is damaged: {error!r}") from error
    if found:
        raise CheckpointError(f"this memory belongs to another host: {'; '.join(found)}")


def check_tokenizer(state: State, tokenizer: Any) -> None:
    """Refuse a memory that was made with another tokenizer.

    Raises:
        CheckpointError: if the vocabularies differ.
    """
    if tokenizer_fingerprint(tokenizer) != state.tokenizer:
        raise CheckpointError("this memory was made with another tokenizer: the vocabularies differ")
