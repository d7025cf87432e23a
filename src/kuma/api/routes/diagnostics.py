"""Metrics and health, on a port of their own."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from kuma.api.derived.metric_names import Prefixed


def create_app(
    registry: CollectorRegistry,
    unready: Callable[[], str],
    unhealthy: Callable[[], str] = str,
    can_use_store: Callable[[], bool] | None = None,
) -> FastAPI:
    """`/metrics` for Prometheus, `/healthy` and `/ready` for whoever restarts or load-balances.

    `unready` says why there are questions that cannot be answered now; nothing if all can. `unhealthy` says why proxies
    are to be sent elsewhere; by itself it says nothing. With `can_use_store` there is `/store`, for other
    workers.
    """
    prefixed = CollectorRegistry()
    prefixed.register(Prefixed(registry))
    app = FastAPI(title="Kuma diagnostics", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(prefixed), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthy")
    async def healthy() -> PlainTextResponse:
        why = unhealthy()
        return PlainTextResponse(f"not healthy: {why}\n", 503) if why else PlainTextResponse("healthy\n")

    @app.get("/ready")
    async def ready() -> PlainTextResponse:
        why = unready()
        return PlainTextResponse(f"not ready: {why}\n", status_code=503) if why else PlainTextResponse("ready\n")

    if can_use_store is not None:

        @app.get("/store")
        async def store() -> PlainTextResponse:
            return PlainTextResponse(status_code=200 if can_use_store() else 503)

    return app
