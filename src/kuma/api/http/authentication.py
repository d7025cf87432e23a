"""Finds out who sends each request, before anything else of it is looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from kuma.api.context import ApiContext
from kuma.api.http import access_control, errors
from kuma.api.http.access_control import ANONYMOUS
from kuma.base.audit import ACTOR, Refusals
from kuma.base.errors import KumaError

_FOR_EVERYBODY = ("/",)
"""Paths where a credential is not looked at: clients ask there what they are talking to before they show one."""


def install(app: FastAPI, context: ApiContext) -> None:
    """Have every request of `app` carry its caller; a credential that does not hold ends it."""

    refusals = Refusals(context.audit, context.clock)

    def recorded(request: Request, response: Response) -> Response:
        if response.status_code in (401, 403):
            address = request.client.host if request.client else ""
            path = request.scope["path"][:300]
            user = access_control.local_user(request)
            more = {} if user is None else {"localUser": user}
            refusals.record(
                address, server="API", status=response.status_code, method=request.method, path=path, **more
            )
        return response

    async def authenticate(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            request.state.caller = (
                ANONYMOUS
                if request.scope["path"] in _FOR_EVERYBODY
                else await access_control.identify(request, context.tokens.verify, context.settings.local_admins)
            )
        except KumaError as error:
            return recorded(request, errors.answer(error, "Request failed"))
        ACTOR.set(str(request.state.caller))
        return recorded(request, await proceed(request))

    app.middleware("http")(authenticate)
