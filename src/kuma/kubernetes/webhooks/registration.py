"""Tells the API server by which CA it verifies the webhooks, as soon as the configurations say something else.

A configuration that was applied anew has lost the CA, and nobody can write until it is there again.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import structlog

from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object
from kuma.kubernetes.api.informer import Informer
from kuma.kubernetes.install.options import MUTATING, VALIDATING

log = structlog.get_logger(__name__)

_GROUP = "/apis/admissionregistration.k8s.io/v1"
_CONFIGURATIONS = (("mutatingwebhookconfigurations", MUTATING), ("validatingwebhookconfigurations", VALIDATING))
_LOOK = 30.0
"""Seconds between two looks at the CA's file, which is local."""
_RETRY = aio.Backoff(first=0.5, last=10.0)


class Registration:
    """Keeps the CA in both configurations."""

    def __init__(self, client: ApiClient, ca: Path) -> None:
        self._client = client
        self._ca = ca
        self._wake = asyncio.Event()
        self._informers = {
            f"{_GROUP}/{plural}/{name}": Informer(client, f"{_GROUP}/{plural}", fieldSelector=f"metadata.name={name}")
            for plural, name in _CONFIGURATIONS
        }
        for informer in self._informers.values():
            informer.on_change(lambda place: self._wake.set())

    async def run(self) -> None:
        """Enter the CA until cancelled."""
        await aio.supervise([*self._informers.items(), ("CA of the webhooks", aio.Running(self._keep))])

    async def _keep(self) -> None:
        """Enter the CA whenever a configuration, or the CA's file, is another."""
        for informer in self._informers.values():
            await informer.listed.wait()
        failures = 0
        while True:
            self._wake.clear()
            try:
                for path, informer in self._informers.items():
                    for found in list(informer.objects.values()):
                        await self._enter(path, found)
                failures = 0
            except (ApiError, Unavailable, OSError) as error:
                failures += 1
                self._client.metrics.controller_failures.labels("webhook registration").inc()
                log.error("webhooks not registered: changes are refused until they are", reason=str(error))
            try:
                async with asyncio.timeout(_RETRY.delay(failures) if failures else _LOOK):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _enter(self, path: str, found: Object) -> None:
        bundle = base64.b64encode(self._ca.read_bytes()).decode()
        webhooks: list[Object] = found.get("webhooks") or []
        if all(webhook["clientConfig"].get("caBundle") == bundle for webhook in webhooks):
            return
        entered = [{**hook, "clientConfig": {**hook["clientConfig"], "caBundle": bundle}} for hook in webhooks]
        version = found["metadata"]["resourceVersion"]
        await self._client.merge(path, {"metadata": {"resourceVersion": version}, "webhooks": entered})
        log.info("webhooks registered", configuration=found["metadata"]["name"])
