"""What errors look like over HTTP: `{"error": {"message", "type"}}`."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from editmem.errors import EditMemError, LedgerError, UnknownEditError
from editmem.serve.store import VersionConflict

STATUS: dict[type[EditMemError], int] = {UnknownEditError: 404, VersionConflict: 409, LedgerError: 507}
"""400 where it is none of these: what was asked cannot be done."""


def _plain(message: str) -> str:
    """What UTF-8 has no bytes for is named: half a surrogate pair out of a request."""
    return message.encode("utf-8", "backslashreplace").decode()


def failure(error: EditMemError) -> tuple[int, dict[str, Any]]:
    """The status, and what is answered."""
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)
    told: dict[str, Any] = {"message": _plain(str(error)), "type": type(error).__name__}
    return status, {"error": told | ({"version": error.version} if isinstance(error, VersionConflict) else {})}


def answer_errors(app: FastAPI) -> None:
    """Have an application answer errors so."""

    @app.exception_handler(EditMemError)
    def _(_request: Request, error: EditMemError) -> JSONResponse:
        status, document = failure(error)
        return JSONResponse(document, status)

    @app.exception_handler(RequestValidationError)
    def _(_request: Request, error: RequestValidationError) -> JSONResponse:
        told = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or e['loc'][0]}: {e['msg']}" for e in error.errors())
        return JSONResponse({"error": {"message": _plain(told), "type": "InvalidRequest"}}, 400)

    @app.exception_handler(HTTPException)
    def _(_request: Request, error: HTTPException) -> JSONResponse:
        document = {"error": {"message": _plain(str(error.detail)), "type": "InvalidRequest"}}
        return JSONResponse(document, error.status_code, headers=error.headers)
