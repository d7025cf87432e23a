"""Issues tokens over the API: for data plane proxies, and for users. For zones there are none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from kuma.api.context import ApiContext
from kuma.api.http.errors import Problem
from kuma.api.routes.late_route import LateRoute
from kuma.base.errors import InvalidResource, Violation
from kuma.base.values import durations
from kuma.resources import keys, kinds, parsing

LONGEST = timedelta(days=10 * 365)
USUAL = timedelta(days=30)
"""How long a dataplane token is valid if nobody says how long."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore", alias_generator=to_camel)  # as in the original, whose clients send more

    name: str = ""
    valid_for: str = ""


class DataplaneTokenRequest(_Request):
    """Claims of a dataplane token that is asked for."""

    mesh: str = ""
    tags: dict[str, list[str]] | None = None
    type: str = ""


class UserTokenRequest(_Request):
    """Subject of a user token that is asked for."""

    groups: list[str] | None = None


_Asked = TypeVar("_Asked", bound=_Request)


def routes(context: ApiContext) -> APIRouter:
    """Serves `POST /tokens/dataplane`, `/tokens/user` and `/tokens/zone`."""
    router = APIRouter(tags=["Tokens"], route_class=LateRoute)
    access = context.settings.access

    @router.post("/tokens/dataplane", summary="Issue a token for data plane proxies", **_body(DataplaneTokenRequest))
    async def dataplane(request: Request) -> PlainTextResponse:
        context.check_grant(request, access.generate_dp_token, "generate dataplane token")
        asked, valid_for = _parse(DataplaneTokenRequest, await context.body(request))
        token = await context.tokens.issue(asked.mesh, asked.name, asked.tags or {}, asked.type, valid_for)
        return PlainTextResponse(token)

    @router.post("/tokens/user", summary="Issue a token for a user of this API", **_body(UserTokenRequest))
    async def user(request: Request) -> PlainTextResponse:
        context.check_grant(request, access.generate_user_token, "generate user token")
        asked, valid_for = _parse(UserTokenRequest, await context.body(request))
        return PlainTextResponse(await context.tokens.issue_user(asked.name, asked.groups or (), valid_for))

    @router.post("/tokens/zone", summary="Refused: there are no zones")
    async def zone(request: Request) -> PlainTextResponse:
        context.check_grant(request, access.generate_zone_token, "generate zone token")
        raise _invalid([Violation("zone", "zones are not implemented by this control plane, nor tokens for them")])

    return router


def _body(model: type[_Request]) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"openapi_extra": {"requestBody": {"required": True, "content": content}}}


def _parse(model: type[_Asked], document: dict[str, object]) -> tuple[_Asked, timedelta]:
    try:
        asked = model.model_validate(document)
    except ValidationError as error:
        raise _invalid([Violation(parsing.path_of(e["loc"]), e["msg"].lower()) for e in error.errors()]) from None
    violations = list(_violations(asked))
    valid_for = USUAL
    if asked.valid_for:
        try:
            valid_for = durations.parse_go_duration(asked.valid_for)
        except ValueError as error:
            violations.append(Violation("validFor", f"is invalid: {error}"))
        if valid_for > LONGEST:
            violations.append(Violation("validFor", "cannot be longer than 10 years (87600h)"))
    if violations:
        raise _invalid(violations)
    return asked, valid_for


def _violations(asked: _Request) -> Iterator[Violation]:
    if isinstance(asked, DataplaneTokenRequest):
        if not asked.mesh:
            yield Violation("mesh", "cannot be empty")
        yield from _names(asked)
        if asked.type not in ("", "dataplane"):
            yield Violation("type", f"{asked.type} is not a valid proxy type; only dataplane is")
        return
    for field, value in (("name", asked.name), ("validFor", asked.valid_for)):
        if not value:
            yield Violation(field, "cannot be empty")


def _names(asked: DataplaneTokenRequest) -> Iterator[Violation]:
    """Refuses names that no Dataplane can have: a token for one would be a mistake."""
    try:
        keys.check(kinds.DATAPLANE.key(asked.name or "any", asked.mesh or "any"))
    except InvalidResource as error:
        yield from error.violations


def _invalid(violations: list[Violation]) -> Problem:
    return Problem(400, "Invalid request", "Resource is not valid", violations)
