"""Diagnostics of all workers at one port: their metrics side by side, and whether proxies may be sent here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import httpx
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from kuma.api.derived.metric_names import Prefixed
from kuma.base.tls.trust import NOBODY

_ANSWER = 5.0
"""Seconds in which a worker is to answer: half of what Prometheus waits for all of them, and it is busy at times."""


def create_app(workers: Mapping[int, int], ready: Callable[[], Sequence[int]], registry: CollectorRegistry) -> FastAPI:
    """`/metrics`, `/healthy` and `/ready` of all `workers`, by number and port, of which those that are `ready` serve.

    `registry` has the parent's own metrics. Who does not answer is left out, and counts as neither healthy nor ready.
    """
    app = FastAPI(title="Kuma diagnostics", docs_url=None, redoc_url=None, openapi_url=None)

    async def asked(path: str) -> Mapping[int, tuple[int, str]]:
        """Status and text of those who answer."""
        async with httpx.AsyncClient(verify=NOBODY, timeout=_ANSWER, trust_env=False) as client:
            serving = tuple(ready())
            answers = await asyncio.gather(*(_ask(client, workers[number], path) for number in serving))
        return {number: answer for number, answer in zip(serving, answers, strict=True) if answer is not None}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        texts = {
            number: text for number, (status, text) in (await asked("/metrics")).items() if status == httpx.codes.OK
        }
        found = CollectorRegistry()
        found.register(Prefixed(registry))
        found.register(_Found(_side_by_side(texts)))
        return PlainTextResponse(generate_latest(found), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthy")
    async def healthy() -> PlainTextResponse:
        """One that is healthy is enough: who is not accepts no proxies."""
        answers = await asked("/healthy")
        if any(status == httpx.codes.OK for status, _ in answers.values()):
            return PlainTextResponse("healthy\n")
        return PlainTextResponse(_told(answers) or "not healthy: no worker serves\n", status_code=503)

    @app.get("/ready")
    async def all_ready() -> PlainTextResponse:
        """Whoever asks a question may get to any of those who serve."""
        answers = await asked("/ready")
        silent = set(ready()) - answers.keys()
        if answers and not silent and all(status == httpx.codes.OK for status, _ in answers.values()):
            return PlainTextResponse("ready\n")
        told = _told(answers) + "".join(f"worker {number}: does not answer\n" for number in sorted(silent))
        return PlainTextResponse(told or "not ready: no worker serves\n", status_code=503)

    return app


async def _ask(client: httpx.AsyncClient, port: int, path: str) -> tuple[int, str] | None:
    try:
        answer = await client.get(f"http://127.0.0.1:{port}{path}")
    except httpx.HTTPError:
        return None
    return answer.status_code, answer.text


def _told(answers: Mapping[int, tuple[int, str]]) -> str:
    return "".join(
        f"worker {number}: {text.strip()}\n" for number, (status, text) in answers.items() if status != httpx.codes.OK
    )


def _side_by_side(texts: Mapping[int, str]) -> Iterable[Metric]:
    """The metrics of all, each with the label `worker`."""
    found: dict[str, Metric] = {}
    for number, text in texts.items():
        for metric in text_string_to_metric_families(text):
            of_all = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit))
            of_all.samples += [
                Sample(sample.name, {**sample.labels, "worker": str(number)}, *sample[2:]) for sample in metric.samples
            ]
    return found.values()


class _Found(Collector):
    """Metrics that are there already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yields them."""
        yield from self._metrics
