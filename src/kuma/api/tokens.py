"""Issuing dataplane tokens over the API."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from kuma.api.callers import check_admin
from kuma.api.context import ApiContext
from kuma.api.errors import Problem
from kuma.base.errors import Violation
from kuma.resources import durations, parsing

LONGEST = timedelta(days=10 * 365)
USUAL = timedelta(days=30)
"""How long a token is valid if nobody says how long."""


class TokenRequest(BaseModel):
    """What a dataplane token should allow."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    mesh: str = ""
    name: str = ""
    tags: dict[str, list[str]] | None = None
    type: str = ""
    valid_for: str = ""


def routes(context: ApiContext) -> APIRouter:
    """`POST /tokens/dataplane`."""
    router = APIRouter(tags=["Tokens"])
    schema = TokenRequest.model_json_schema()
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @router.post("/tokens/dataplane", summary="Issue a token for data plane proxies", openapi_extra=body)
    async def dataplane(request: Request) -> PlainTextResponse:
        check_admin(context.caller(request), "generate dataplane token")
        asked, valid_for = _parse(await context.body(request))
        await context.check_mesh(asked.mesh)
        token = await context.issue_token(asked.mesh, asked.name, asked.tags or {}, asked.type, valid_for)
        return PlainTextResponse(token)

    return router


def _parse(document: dict[str, object]) -> tuple[TokenRequest, timedelta]:
    violations: list[Violation] = []
    asked, valid_for = TokenRequest(), USUAL
    try:
        asked = TokenRequest.model_validate(document)
    except ValidationError as error:
        violations += [Violation(parsing.path_of(e["loc"]), e["msg"].lower()) for e in error.errors()]
    else:
        if not asked.mesh:
            violations.append(Violation("mesh", "cannot be empty"))
        if asked.type not in ("", "dataplane"):
            violations.append(Violation("type", f"{asked.type} is not a valid proxy type; only dataplane is"))
        if asked.valid_for:
            try:
                valid_for = durations.parse_go_duration(asked.valid_for)
            except ValueError as error:
                violations.append(Violation("validFor", f"is invalid: {error}"))
            if valid_for > LONGEST:
                violations.append(Violation("validFor", "cannot be longer than 10 years (87600h)"))
    if violations:
        raise Problem(400, "Invalid request", "Resource is not valid", violations)
    return asked, valid_for
