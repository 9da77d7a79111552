"""Run the server: `editmem serve`."""

from collections.abc import Sequence
from pathlib import Path

import uvicorn

from editmem.hosts.loading import load_host
from editmem.serve.app import build_app
from editmem.serve.audit import Audit
from editmem.serve.guard import LOCAL, Keys
from editmem.serve.store import Store


def serve(
    model: str,
    memory: Path | None,
    spec: str,
    *,
    name: str | None,
    host: str,
    port: int,
    api_key: str | None,
    edit_key: str | None,
    hosts: Sequence[str],
    origins: Sequence[str],
    audit: Path | None,
    every: float,
) -> None:
    """Load a model and its memory, and serve them until interrupted; the arguments are those of the command.

    Raises:
        ValueError: if it would let anybody edit from anywhere.
        EditMemError: if the memory cannot be put on the model.
    """
    keys = Keys(api_key or None, edit_key or None)
    if host not in LOCAL and not (keys.api or keys.edit):
        raise ValueError(
            f"at {host} anybody who reaches this machine could edit the model; give --api-key or --edit-key, or listen "
            "at 127.0.0.1"
        )
    named = [*LOCAL, *hosts] if host in LOCAL or hosts else []
    if audit is None and memory is not None:
        audit = memory.with_name(f"{memory.name}.audit.jsonl")
    with Store.open(*load_host(model), memory, spec, every) as store:
        changes = Audit(audit)
        try:
            app = build_app(store, name or Path(model).name, keys=keys, hosts=named, origins=origins, audit=changes)
            uvicorn.run(app, host=host, port=port)
        finally:
            changes.close()
