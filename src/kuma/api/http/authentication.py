"""Finds out who sends each request, before anything else of it is looked at."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response

from kuma.api.context import ApiContext
from kuma.api.http import access_control, errors, steps
from kuma.api.http.access_control import ANONYMOUS
from kuma.api.http.steps import Proceed
from kuma.base.audit import ACTOR, Refusals
from kuma.base.errors import KumaError

_FOR_EVERYBODY = ("/", "/gui")
"""Paths where a credential is not looked at: clients ask there what they are talking to before they show one."""
_BY_THEMSELVES = ("/gui/",)
"""Beginnings of paths where an application of its own is mounted that identifies its callers: the console."""


def install(app: FastAPI, context: ApiContext) -> None:
    """Have every request of `app` carry its caller; a credential that does not hold ends it."""

    refusals = Refusals(context.audit, context.clock)

    def record(request: Request, status: int) -> None:
        if status in (401, 403):
            address = request.client.host if request.client else ""
            path = request.scope["path"][:300]
            user = access_control.local_user(request)
            more = {} if user is None else {"localUser": user}
            refusals.record(address, server="API", status=status, method=request.method, path=path, **more)

    async def authenticate(request: Request, proceed: Proceed) -> Response | None:
        path: str = request.scope["path"]
        try:
            request.state.caller = (
                ANONYMOUS
                if path in _FOR_EVERYBODY or path.startswith(_BY_THEMSELVES)
                else await access_control.identify(request, context.tokens.verify, context.settings.local_admins)
            )
        except KumaError as error:
            refusal = errors.answer(error, "Request failed")
            record(request, refusal.status_code)
            return refusal
        ACTOR.set(str(request.state.caller))

        def answering(status: int) -> None:
            ACTOR.set(str(request.state.caller))  # who it is may be known only now
            record(request, status)

        await proceed(answering)
        return None

    steps.install(app, authenticate)
