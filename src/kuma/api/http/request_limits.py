"""Rate limits of the HTTP servers: an abusive client gets 429, and the others do not notice it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response

from kuma.api.http import errors, steps
from kuma.api.http.errors import Problem
from kuma.api.http.steps import Proceed
from kuma.base.clock import Clock
from kuma.base.values import addresses
from kuma.base.values.rate_limit import Buckets, Rate


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Rate limits of HTTP requests, for one client address; of IPv6, for one network (see `addresses.holder`)."""

    requests: Rate = field(default_factory=lambda: Rate(200, 400))
    concurrent: int = 64


def install(app: FastAPI, limits: RequestLimits, clock: Clock) -> None:
    """Hold every client of `app` to `limits`."""
    buckets, running = Buckets(limits.requests), Counter[str]()

    async def limited(request: Request, proceed: Proceed) -> Response | None:
        client = addresses.holder(request.client.host) if request.client else ""
        wait = buckets.take(client, clock.now())
        if wait:
            return _refused(f"more than {limits.requests.per_second:g} requests a second", math.ceil(wait))
        if running[client] >= limits.concurrent:
            return _refused(f"more than {limits.concurrent} requests at once", 1)
        running[client] += 1
        try:
            await proceed()
        finally:
            running[client] -= 1
            if not running[client]:
                del running[client]
        return None

    steps.install(app, limited)


def _refused(what: str, seconds: int) -> Response:
    problem = Problem(429, "Too Many Requests", f"{what} from one address; try again in {seconds} s")
    found = errors.answer(problem, problem.title)
    found.headers["retry-after"] = str(seconds)
    return found
