"""A client of the API of edits."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

import httpx

from editmem.edits.edit import Edit, EditRecord, Prompt, edit_of, read_edits
from editmem.edits.history import Event
from editmem.errors import EditMemError, InvalidEditError, LedgerError, UnknownEditError


class ServerError(EditMemError):
    """The server refused, or failed.

    Attributes:
        status: of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Conflict(ServerError):
    """Somebody else changed the memory first. Nothing was changed."""


KINDS: dict[str, type[EditMemError]] = {
    kind.__name__: kind for kind in (InvalidEditError, LedgerError, UnknownEditError)
}


class Client:
    """The memory of a served model, from elsewhere; use as a context manager to close its connections.

    Args:
        url: of the server.
        key: one of its keys, if it asks for them.
        user: who is at work, for the server's audit.
        timeout: seconds; None to wait for as long as it takes.
        http: a client of httpx to use in place of an own, such as one of a test.

    Raises (every method):
        UnknownEditError, InvalidEditError, LedgerError: as the editor on the server raised it.
        Conflict: if an `expected_version` was given, and the memory has another.
        ServerError: if the server refuses otherwise.
        httpx.HTTPError: if it cannot be reached.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        user: str | None = None,
        timeout: float | None = 600.0,
        http: httpx.Client | None = None,
    ) -> None:
        headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
        headers |= {b"x-editmem-user": user.encode()} if user else {}
        self._http = http or httpx.Client(timeout=timeout)
        self._url, self._headers = url.rstrip("/"), headers

    # Looking

    @property
    def version(self) -> int:
        """Of the memory: how many events its history has."""
        return int(self.memory()["version"])

    def memory(self) -> dict[str, Any]:
        """What is served: version, number of edits, model, methods."""
        return self._get("/v1/memory")

    def edits(self, q: str = "", *, tag: str = "", page: int = 500) -> Iterator[EditRecord]:
        """Active edits, newest first, of which a field contains `q`."""
        seen: set[str] = set()  # what is added meanwhile moves the others to later pages
        offset, total = 0, 1
        while offset < total:
            found = self._get("/v1/edits", q=q, tag=tag, offset=offset, limit=page)
            records = [record for record in map(_record, found["edits"]) if record.id not in seen]
            seen.update(record.id for record in records)
            yield from records
            offset, total = offset + page, found["total"]

    def get(self, id: str) -> EditRecord:
        """An edit, be it active or not."""
        return _record(self._get(f"/v1/edits/{_in_path(id)}")["record"])

    def history(self, after: int = 0) -> Iterator[Event]:
        """Events from the number `after` on, oldest first."""
        while events := self._get("/v1/memory/history", after=after, limit=1000)["events"]:
            yield from map(_event, events)
            after = events[-1]["number"] + 1

    def diff(self, a: int, b: int) -> dict[str, Any]:
        """What became of the edits from version `a` to `b`: "added", "removed", "changed"."""
        return self._get("/v1/memory/diff", a=a, b=b)

    def explain(self, prompt: Prompt) -> dict[str, Any]:
        """Which edit acts on a prompt, and how near the others are."""
        found: dict[str, Any] = self._post("/v1/memory/explain", {"prompt": prompt})["explanation"]
        return found

    def preview(
        self, edit: Edit | Mapping[str, Any] | tuple[Prompt, str], questions: Sequence[str] = ()
    ) -> dict[str, Any]:
        """What an edit would do, and what it would take along; nothing is changed."""
        return self._post("/v1/edits/preview", {"edit": _given(edit_of(edit)), "questions": list(questions)})

    # Changing

    def edit(
        self,
        prompt_or_edits: Any,
        target: str | None = None,
        *,
        expected_version: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        **fields: Any,
    ) -> EditRecord | list[EditRecord]:
        """As `editmem.Editor.edit`, on the server: a single edit, or many, all or nothing."""
        edits, single = read_edits(prompt_or_edits, target, **fields)
        given = {"edits": [_given(edit) for edit in edits], "expected_version": expected_version}
        written = self._post("/v1/edits", given) if progress is None else self._stream("/v1/edits", given, progress)
        records = [_record(record) for record in written["records"]]
        return records[0] if single else records

    def forget(self, *ids: str, expected_version: int | None = None) -> int:
        """Forget edits, all or nothing; the version after it."""
        return int(self._post("/v1/memory/forget", {"ids": ids, "expected_version": expected_version})["version"])

    def undo(self, n: int = 1, *, expected_version: int | None = None) -> list[str]:
        """Take back the last `n` changes; the ids of the edits that became active or inactive."""
        return list(self._post("/v1/memory/undo", {"n": n, "expected_version": expected_version})["changed"])

    def confirm(self, prompt: Prompt, id: str, *, expected_version: int | None = None) -> dict[str, Any]:
        """Say that an edit is for a question, too; why it acts on it now."""
        given = {"prompt": prompt, "id": id, "expected_version": expected_version}
        found: dict[str, Any] = self._post("/v1/memory/confirm", given)["explanation"]
        return found

    def reject(self, prompt: Prompt, *, expected_version: int | None = None) -> dict[str, Any]:
        """Say that the edit which acts on a question is not for it; what acts on it now."""
        given = {"prompt": prompt, "expected_version": expected_version}
        found: dict[str, Any] = self._post("/v1/memory/reject", given)["explanation"]
        return found

    # The wire

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        return _checked(self._http.get(f"{self._url}{path}", params=query, headers=self._headers))

    def _post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        return _checked(self._http.post(f"{self._url}{path}", json=document, headers=self._headers))

    def _stream(self, path: str, document: Mapping[str, Any], progress: Callable[[int, int], None]) -> dict[str, Any]:
        request = {"json": {**document, "stream": True}, "headers": self._headers}
        with self._http.stream("POST", f"{self._url}{path}", **request) as response:  # type: ignore[arg-type]
            if response.is_error:
                response.read()
                return _checked(response)
            for event in _events(response.iter_lines()):
                if "done" in event:
                    progress(event["done"], event["all"])
                elif "error" in event:
                    raise _raised(event["error"], 400)
                else:
                    return event
        raise ServerError("the server ended the answer before it was whole", response.status_code)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _in_path(id: str) -> str:
    """An id as a part of a path, also one that looks like several, or like a step up."""
    return quote(id, safe="").replace(".", "%2E")


def _given(edit: Edit) -> dict[str, Any]:
    return edit.to_dict()


def _record(document: Mapping[str, Any]) -> EditRecord:
    return EditRecord.from_dict({name: value for name, value in document.items() if name != "id"})


def _event(document: Mapping[str, Any]) -> Event:
    record = document["record"]
    fields = {name: value for name, value in document.items() if name != "record"}
    return Event.from_dict(
        fields if record is None else {**fields, "record": {k: record[k] for k in record if k != "id"}}
    )


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    return (json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:"))


def _checked(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        try:
            error = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {"message": response.text, "type": ""}
        raise _raised(error, response.status_code)
    return dict(response.json())


def _raised(error: Mapping[str, Any], status: int) -> EditMemError:
    kind, message = error.get("type", ""), str(error.get("message"))
    if kind == "VersionConflict":
        return Conflict(message, status)
    return KINDS[kind](message) if kind in KINDS else ServerError(message, status)
