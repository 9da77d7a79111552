"""The API of edits: `/v1/edits` for the edits themselves, `/v1/memory` for their history and what is done with it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from editmem.editor import Editor
from editmem.edits.edit import Edit
from editmem.errors import EditMemError, InvalidEditError, UnknownEditError
from editmem.serve import schemas
from editmem.serve.audit import Audit
from editmem.serve.errors import failure
from editmem.serve.guard import Keys, Limits
from editmem.serve.line import Line
from editmem.serve.store import Store

Id = Annotated[str, Query(description="Of an edit.")]
Expected = Annotated[int | None, Query(description="Refuse with 409 if the memory has another version.")]
Offset = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=1000)]
USER = "x-editmem-user"
EXPLAINING = 4
"""Explanations at once."""
_log = logging.getLogger(__name__)


class EditsApi:
    """Routes that look at a memory and change it.

    Args:
        store: the memory.
        name: of the model that is served.
        audit: gets a line for every change.
        keys: of the server.
        limits: of requests.
    """

    def __init__(self, store: Store, name: str, audit: Audit, keys: Keys, limits: Limits) -> None:
        self.store, self.name, self.audit, self.keys, self.limits = store, name, audit, keys, limits
        self.router = APIRouter(prefix="/v1")
        self.line, explaining = Line(limits.waiting), Line(limits.waiting, threads=EXPLAINING)
        get, post, delete = self.router.get, self.router.post, self.router.delete
        get("/edits", tags=["edits"])(self.list_edits)
        post("/edits", tags=["edits"], response_model=schemas.WrittenOut)(self.add)
        post("/edits/preview", tags=["edits"])(self.line.handler(self.preview))
        get("/edits/export", tags=["edits"], response_class=PlainTextResponse)(self.export)
        get("/edits/{id:path}", tags=["edits"])(self.one)
        delete("/edits/{id:path}", tags=["edits"])(self.line.handler(self.forget_one))
        get("/memory", tags=["memory"])(self.memory)
        get("/memory/history", tags=["memory"])(self.history)
        get("/memory/diff", tags=["memory"])(self.diff)
        post("/memory/forget", tags=["memory"])(self.line.handler(self.forget))
        post("/memory/undo", tags=["memory"])(self.line.handler(self.undo))
        post("/memory/explain", tags=["memory"])(explaining.handler(self.explain))
        post("/memory/confirm", tags=["memory"])(self.line.handler(self.confirm))
        post("/memory/reject", tags=["memory"])(self.line.handler(self.reject))

    @property
    def editor(self) -> Editor:
        return self.store.editor

    # Looking

    def memory(self, request: Request) -> schemas.MemoryOut:
        """What is served."""
        shown = request.scope.get("state", {}).get("key", "none")
        return schemas.MemoryOut(
            version=self.editor.version,
            edits=len(self.editor.edits),
            model=self.name,
            methods=[spec.method for spec in self.editor.specs],
            snapshot_version=self.store.saved,
            writable=self.keys.refusal(shown, changes=True) is None,
        )

    def list_edits(self, q: str = "", tag: str = "", offset: Offset = 0, limit: Limit = 100) -> schemas.EditsOut:
        """Active edits, newest first, of which a field contains `q`, and that have the tag."""
        version, records = self.editor.version, reversed(list(self.editor.edits.values()))
        found = [r for r in records if _contains(r.edit, q.casefold()) and (not tag or tag in r.edit.tags)]
        page = [schemas.RecordOut.of(record) for record in found[offset : offset + limit]]
        return schemas.EditsOut(version=version, total=len(found), edits=page)

    def export(self) -> PlainTextResponse:
        """The active edits as JSONL."""
        lines = [json.dumps(r.edit.to_dict(), ensure_ascii=False) for r in self.editor.edits.values()]
        named = {"content-disposition": 'attachment; filename="edits.jsonl"'}
        return PlainTextResponse("".join(f"{line}\n" for line in lines), headers=named, media_type="application/jsonl")

    def one(self, id: str) -> schemas.EditOut:
        """An edit, be it active or not, with what became of it."""
        version, events = self.editor.version, [event for event in self.editor.history if id in event.ids]
        if not events:
            raise UnknownEditError(f"no edit has, or had, the id {id!r}")
        active = self.editor.edits.get(id)
        record = active or next(event.record for event in reversed(events) if event.record is not None)
        return schemas.EditOut(
            version=version,
            record=schemas.RecordOut.of(record),
            active=active is not None,
            events=[schemas.EventOut.of(event) for event in events],
        )

    def history(
        self,
        after: Annotated[int | None, Query(ge=0)] = None,
        limit: Limit = 100,
        order: Literal["asc", "desc"] = "asc",
    ) -> schemas.HistoryOut:
        """Events from the number `after` on, oldest first; or newest first, those before it."""
        history, version = self.editor.history, self.editor.version
        if order == "asc":
            numbers = range(min(after or 0, version), version)
        else:
            numbers = range(min(version if after is None else after, version) - 1, -1, -1)
        events = [schemas.EventOut.of(history[number]) for number in islice(numbers, limit)]
        return schemas.HistoryOut(version=version, events=events)

    def diff(self, a: Annotated[int, Query(ge=0)], b: Annotated[int, Query(ge=0)]) -> schemas.DiffOut:
        """What became of the edits from version `a` to version `b`."""
        version = self.editor.version
        if max(a, b) > version:
            raise InvalidEditError(f"there is no version {max(a, b)} yet; the memory has version {version}")
        return schemas.DiffOut.of(self.editor.history.edits(upto=a), self.editor.history.edits(upto=b), version)

    def explain(self, given: schemas.ExplainIn) -> schemas.ExplainedOut:
        """Which edit acts on a prompt, and how near the others are."""
        with self.editor.pinned() as version:
            found = self.editor.explain(schemas.prompt_of(given.prompt))
        return schemas.ExplainedOut(version=version, explanation=schemas.ExplanationOut.of(found))

    def preview(self, given: schemas.PreviewIn) -> schemas.PreviewOut:
        """What an edit would do, and what it would take along; nothing is changed."""
        with self.store.changing() as editor:
            return schemas.PreviewOut.of(editor.preview(given.edit.edit(), given.questions), editor.version)

    # Changing

    async def add(self, given: schemas.EditsIn, request: Request) -> Any:
        """Add edits: all of them, or none."""
        if len(given.edits) > self.limits.edits:
            raise HTTPException(413, f"{len(given.edits)} edits are more than {self.limits.edits}; send them in parts")
        edits = await to_thread.run_sync(lambda: [each.edit() for each in given.edits])

        def write(progress: Callable[[int, int], None] | bool = False) -> schemas.WrittenOut:
            with self.store.changing(given.expected_version) as editor:
                records = editor.edit(edits, progress=progress)
                self._note(request, "edit", [record.id for record in records])
                return schemas.WrittenOut(version=editor.version, records=[schemas.RecordOut.of(r) for r in records])

        if not given.stream:
            return await self.line.run(write)
        return StreamingResponse(_progress(self.line, write), media_type="text/event-stream")

    def forget_one(self, id: str, request: Request, expected_version: Expected = None) -> schemas.ForgottenOut:
        """Forget an edit."""
        return self._forget([id], expected_version, request)

    def forget(self, given: schemas.ForgetIn, request: Request) -> schemas.ForgottenOut:
        """Forget edits: all of them, or none."""
        return self._forget(given.ids, given.expected_version, request)

    def _forget(self, ids: list[str], expected: int | None, request: Request) -> schemas.ForgottenOut:
        with self.store.changing(expected) as editor:
            editor.forget(*ids)
            self._note(request, "forget", ids)
            return schemas.ForgottenOut(version=editor.version, forgotten=ids)

    def undo(self, given: schemas.UndoIn, request: Request) -> schemas.UndoneOut:
        """Take back the last edits, forgettings, confirmations or rejections."""
        with self.store.changing(given.expected_version) as editor:
            editor.undo(given.n)
            changed = list(editor.history[editor.version - 1].ids)
            self._note(request, "undo", changed)
            return schemas.UndoneOut(version=editor.version, changed=changed)

    def confirm(self, given: schemas.ConfirmIn, request: Request) -> schemas.ExplainedOut:
        """Say that an edit is for a question, too."""
        with self.store.changing(given.expected_version) as editor:
            found = editor.confirm(schemas.prompt_of(given.prompt), given.id)
            self._note(request, "confirm", [given.id])
            return schemas.ExplainedOut(version=editor.version, explanation=schemas.ExplanationOut.of(found))

    def reject(self, given: schemas.RejectIn, request: Request) -> schemas.ExplainedOut:
        """Say that the edit which acts on a question is not for it."""
        with self.store.changing(given.expected_version) as editor:
            found = editor.reject(schemas.prompt_of(given.prompt))
            self._note(request, "reject", editor.history[editor.version - 1].ids)
            return schemas.ExplainedOut(version=editor.version, explanation=schemas.ExplanationOut.of(found))

    def _note(self, request: Request, action: str, ids: Any) -> None:
        address = request.client.host if request.client else ""
        key = request.scope.get("state", {}).get("key", "none")
        self.audit.write(action, ids, self.editor.version, key, address, _words(request.headers.get(USER, "")))


def _words(header: str) -> str:
    """A header in UTF-8, or else in Latin-1, as which all are read."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


def _contains(edit: Edit, text: str) -> bool:
    texts = (edit.text, edit.target, edit.id, edit.subject, edit.source, *edit.aliases, *edit.phrasings, *edit.tags)
    return not text or any(text in each.casefold() for each in texts if each)


def _progress(line: Line, write: Callable[[Callable[[int, int], None]], schemas.WrittenOut]) -> AsyncIterator[str]:
    """Server-sent events: how far it is, and last what came of it, or why it failed.

    It is written whether or not anybody reads them.
    """
    loop, events = asyncio.get_running_loop(), asyncio.Queue[Mapping[str, Any] | None]()

    def tell(event: Mapping[str, Any] | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server stops, and what was begun is done yet
            loop.call_soon_threadsafe(events.put_nowait, event)

    def work() -> None:
        try:
            tell(write(lambda done, all: tell({"done": done, "all": all})).model_dump(mode="json"))
        except EditMemError as error:
            tell(failure(error)[1])
        except Exception:
            _log.exception("edits could not be made")
            tell({"error": {"message": "the server failed; its log says why", "type": "failed"}})
        finally:
            tell(None)

    line.join(work)

    async def told() -> AsyncIterator[str]:
        while (event := await events.get()) is not None:
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"

    return told()
