"""The whole application: the OpenAI API on the edited model, the API of edits, the console, and what guards them."""

import uuid
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response

import editmem
from editmem.serve.audit import Audit
from editmem.serve.edits_api import USER, EditsApi
from editmem.serve.errors import answer_errors
from editmem.serve.generation import Chats, Completions, EditedModel, Generations, Responses
from editmem.serve.guard import LOCAL, Guard, Keys, Limits
from editmem.serve.schemas import FailedOut
from editmem.serve.store import Store

REQUEST_ID = "x-request-id"
SAFE = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def build_app(
    store: Store,
    name: str,
    *,
    keys: Keys = Keys(),  # noqa: B008  (frozen)
    hosts: Sequence[str] = LOCAL,
    origins: Sequence[str] = (),
    limits: Limits = Limits(),  # noqa: B008
    audit: Audit | None = None,
) -> FastAPI:
    """An ASGI application that serves the model of a store's editor.

    Args:
        store: with the editor.
        name: under which the model is served.
        keys: that are asked for.
        hosts: names that the server answers to; empty for any.
        origins: of pages that may call it, beside its own.
        limits: of requests.
        audit: where changes are noted; None for the log.
    """
    app = FastAPI(
        title="editmem", version=editmem.__version__, docs_url=None, redoc_url=None,
        responses={400: {"model": FailedOut}},
    )  # fmt: skip
    answer_errors(app)
    _serve_model(app, store, name, limits)
    app.include_router(EditsApi(store, name, audit or Audit(), keys, limits).router)
    _serve_console(app)
    app.add_middleware(Guard, keys=keys, hosts=hosts, origins=origins, limits=limits)
    if origins:
        headers = ["authorization", "content-type", USER]
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["*"], allow_headers=headers)
    return app


def _serve_model(app: FastAPI, store: Store, name: str, limits: Limits) -> None:
    model, generations = EditedModel(store.editor, name), Generations(store.editor, limits.waiting)

    def route(path: str, kind: Any) -> None:
        handler = kind(model_manager=model, generation_state=generations)
        handler.limits = limits

        @app.post(path, tags=["model"], description=kind.__doc__, name=path)
        async def _(request: Request, body: dict[str, Any]) -> Response:
            request_id = request.headers.get(REQUEST_ID) or str(uuid.uuid4())
            response: Response = await handler.handle_request(body, request_id)
            response.headers[REQUEST_ID] = request_id
            return response

    route("/v1/chat/completions", Chats)
    route("/v1/completions", Completions)
    route("/v1/responses", Responses)

    @app.get("/v1/models", tags=["model"])
    def models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": model.list_models()})

    @app.get("/health", tags=["model"])
    def health() -> JSONResponse:
        return JSONResponse({"status": "ok"})


def _serve_console(app: FastAPI) -> None:
    files = {
        Path(str(file)).name: Path(str(file)) for file in resources.files("editmem.serve").joinpath("console").iterdir()
    }

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(files["index.html"], headers=SAFE)

    @app.get("/console/{file}", include_in_schema=False)
    def part(file: str) -> Response:
        if file not in files:
            return JSONResponse({"error": {"message": f"there is no file {file!r}", "type": "InvalidRequest"}}, 404)
        return FileResponse(files[file], headers=SAFE)
