"""Finds out who sends each request, before anything else of it is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from kuma.api import callers, errors
from kuma.api.callers import ANONYMOUS
from kuma.api.context import ApiContext
from kuma.base.audit import ACTOR
from kuma.base.errors import KumaError

_FOR_EVERYBODY = ("/",)
"""Paths where a credential is not looked at: clients ask there what they are talking to before they show one."""


def install(app: FastAPI, context: ApiContext) -> None:
    """Have every request of `app` carry its caller; a credential that does not hold ends it."""

    async def authenticate(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            request.state.caller = (
                ANONYMOUS
                if request.scope["path"] in _FOR_EVERYBODY
                else await callers.identify(
                    request, context.verify_token, localhost_is_admin=context.settings.localhost_is_admin
                )
            )
        except KumaError as error:
            return errors.answer(error, "Request failed")
        ACTOR.set(str(request.state.caller))
        return await proceed(request)

    app.middleware("http")(authenticate)
