"""Run the server: `editmem serve`."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from editmem.hosts.loading import load_host
from editmem.serve.app import build_app
from editmem.serve.audit import Audit
from editmem.serve.guard import LOCAL, Keys
from editmem.serve.store import Store

GRACE = 30
"""Seconds that answers have to end when the server is stopped."""


@contextmanager
def _stopped_as_interrupted() -> Iterator[None]:
    """SIGTERM is an interrupt inside: uvicorn raises it again when it has stopped, and it would end the process there.

    A snapshot is to be saved yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
        ValueError: if it would let anybody edit from anywhere, or a key is empty or none that can be sent.
        EditMemError: if the memory cannot be put on the model.
    """
    keys = Keys(api_key, edit_key)
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
            with _stopped_as_interrupted():
                uvicorn.run(app, host=host, port=port, timeout_graceful_shutdown=GRACE)
        finally:
            changes.close()
