"""What a request has to show before anything reads it: a known host, no foreign page, a body of a size, a key."""

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost", "::1")
OPEN = ("/", "/favicon.ico")
"""Paths that need no key, beside the console's files: they tell nothing of the model."""
CHANGES = ("/v1/edits", "/v1/memory")
"""Below these, what is not read only changes the memory, or keeps others from generating."""
READS = ("/v1/memory/explain",)


@dataclass(frozen=True)
class Limits:
    """How much a request may ask for.

    Attributes:
        body: bytes of a request.
        edits: edits in a call.
        tokens: new tokens of an answer.
        beams: of a generation, and sequences that it returns.
        waiting: changes, explanations, or generations that run or wait, each.
    """

    body: int = 8 << 20
    edits: int = 10_000
    tokens: int = 4096
    beams: int = 8
    waiting: int = 256


@dataclass(frozen=True)
class Keys:
    """The keys of a server; None where none is asked for.

    Attributes:
        api: for everything, or for what changes nothing, where there is an `edit` key.
        edit: for everything.
    """

    api: str | None = None
    edit: str | None = None

    def __post_init__(self) -> None:
        for key in (self.api, self.edit):
            if key is not None and (not key.isprintable() or key != key.strip() or not key):
                raise ValueError("a key must be text that a header can hold: not empty, without spaces around it")

    def shown(self, headers: Headers) -> str:
        """Which key a request has: "edit", "api", or "none"."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given if scheme.lower() == "bearer" else ""
        found = [name for name in ("edit", "api") if _same(given, getattr(self, name))]
        return found[0] if found else "none"

    def refusal(self, shown: str, changes: bool) -> tuple[int, str] | None:
        """Status and message, where the key that was shown does not do."""
        if shown == "edit" or (self.api is None and self.edit is None):
            return None
        if changes and self.edit is not None:
            told = "this needs the key for editing, as `Authorization: Bearer KEY`"
            return (401 if shown == "none" else 403), told
        if shown == "none" and self.api is not None:
            return 401, "no key, or a wrong one; send it as `Authorization: Bearer KEY`"
        return None


def _same(given: str, key: str | None) -> bool:
    return key is not None and hmac.compare_digest(given.encode("latin-1"), key.encode())


class Guard:
    """ASGI middleware that refuses requests; `scope["state"]["key"]` says which key was shown.

    Args:
        app: what is guarded.
        keys: of the server.
        hosts: names under which the server may be called, against pages that make their own name lead here; empty
            where any will do, because keys are asked for.
        origins: of pages that may call it, beside its own.
        limits: of requests.
    """

    def __init__(self, app: ASGIApp, keys: Keys, hosts: Sequence[str], origins: Sequence[str], limits: Limits) -> None:
        self.app, self.keys, self.hosts, self.origins, self.limits = app, keys, hosts, origins, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        shown = self.keys.shown(headers)
        scope.setdefault("state", {})["key"] = shown
        refusal = self._foreign(headers) or self._unkeyed(scope, shown)
        if refusal is None:
            try:
                body = await self._body(headers, receive)
            except ClientDisconnect:  # what came of it may look whole
                return
            if body is not None:
                await self.app(scope, _replayed(body, receive), send)
                return
            refusal = 413, f"the body is larger than {self.limits.body} bytes; send it in parts"
        await _refuse(send, *refusal)

    def _foreign(self, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.hosts and _name(f"//{host}") not in self.hosts:
            return 403, f"this server is not called {host!r}; start it with --allow-host to have it answer to that name"
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and _place(origin) != host:
            return 403, f"pages of {origin!r} may not call this server; start it with --cors-origin to let them"
        return None

    def _unkeyed(self, scope: Scope, shown: str) -> tuple[int, str] | None:
        path, reads = scope["path"], scope["method"] in ("GET", "HEAD", "OPTIONS")
        if path in OPEN or path.startswith("/console/"):
            return None
        changes = not reads and path.startswith(CHANGES) and path not in READS
        return self.keys.refusal(shown, changes)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """All of it; None where it is too large."""
        if (
            not headers.get("content-length", "0").isdecimal()
            or int(headers.get("content-length", "0")) > self.limits.body
        ):
            return None
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self.limits.body:
                return None
        return b"".join(parts)


def _place(url: str) -> str | None:
    """Host and port of an origin; None where it has none."""
    try:
        return urlsplit(url).netloc or None
    except ValueError:
        return None


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "refused"}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
