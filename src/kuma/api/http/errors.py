"""Errors as the API answers them: one table, one JSON shape."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.exceptions import HTTPException

from kuma.api.http import steps
from kuma.api.http.bodies import json_answer
from kuma.api.http.steps import Proceed
from kuma.base.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InvalidResource,
    KumaError,
    NoSigningKey,
    NotFound,
    Unauthenticated,
    Unavailable,
    Violation,
)

log = structlog.get_logger(__name__)


RETRY_AFTER = "1"
"""Seconds."""


class Problem(Exception):
    """An error with a status and title of its own."""

    def __init__(self, status: int, title: str, detail: str, violations: Sequence[Violation] = ()) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.violations = status, title, detail, violations


def body(status: int, title: str, detail: str, violations: Sequence[Violation] = ()) -> dict[str, Any]:
    """Returns the JSON of an error. `details` and `causes` repeat the rest for older clients."""
    found: dict[str, Any] = {"type": "/std-errors", "status": status, "title": title, "detail": detail}
    if violations:
        found["invalid_parameters"] = [{"field": v.field, "reason": v.reason} for v in violations]
    found["details"] = detail
    if violations:
        found["causes"] = [{"field": v.field, "message": v.reason} for v in violations]
    return found


def problem(error: Exception, title: str) -> Problem:
    """Returns the answer to an error that was raised below; `title` says what was being tried."""
    match error:
        case Problem():
            return error
        case InvalidResource():
            return Problem(400, title, "Resource is not valid", error.violations)
        case NoSigningKey():
            return Problem(404, "Signing Key not found", str(error))
        case NotFound():
            return Problem(404, title, "Not found")
        case AlreadyExists() | Conflict():
            return Problem(409, "Conflict", str(error))
        case Unauthenticated():
            return Problem(401, "Invalid authentication data", str(error))
        case AccessDenied():
            return Problem(403, "Access Denied", str(error))
        case Unavailable():
            return Problem(503, "Service unavailable", str(error))
        case KumaError():
            return Problem(500, title, str(error))
        case _:
            return Problem(500, title, "Internal Server Error")


PAGE_NOT_FOUND = "404: Page Not Found"
"""What the original says to a path that it does not have. Its kuma-dp takes it for the sign of a wrong port."""


def install(app: FastAPI, *, unknown_path: str = "") -> None:
    """Have `app` answer all errors in the one shape; paths that it does not have with `unknown_path`, if given."""

    async def known(request: Request, error: Exception) -> Response:
        return answer(error, getattr(request.state, "title", "Request failed"))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404 and unknown_path:
            return PlainTextResponse(unknown_path, 404)
        titles = {404: "Not Found", 405: "Method not Allowed"}
        title = titles.get(error.status_code, "Request failed")
        detail = "Method not allowed" if error.status_code == 405 else str(error.detail)
        return _answer(Problem(error.status_code, title, detail), error.headers)

    app.add_exception_handler(KumaError, known)
    app.add_exception_handler(Problem, known)
    app.add_exception_handler(HTTPException, http)
    steps.install(app, _unexpected)


async def _unexpected(request: Request, proceed: Proceed) -> Response | None:
    """Answers an unexpected error: logs it whole and sends none of its text."""
    try:
        await proceed()
    except Exception:
        if proceed.has_begun:
            raise
        reference = str(uuid.uuid4())
        log.exception("request failed", method=request.method, path=request.scope["path"], reference=reference)
        detail = f"Internal Server Error; the control plane's log has the cause under {reference}"
        return _answer(Problem(500, getattr(request.state, "title", "Request failed"), detail))
    return None


def answer(error: Exception, title: str) -> Response:
    """Returns the answer to a request that failed."""
    return _answer(problem(error, title))


def _answer(found: Problem, headers: Any = None) -> Response:
    if found.status in (429, 503):
        headers = {"retry-after": RETRY_AFTER, **(headers or {})}
    return json_answer(body(found.status, found.title, found.detail, found.violations), found.status, headers)
