"""Tells the API server by which CA it verifies the webhooks, whenever the configurations say something else."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import structlog

from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object
from kuma.kubernetes.install.options import MUTATING, VALIDATING

log = structlog.get_logger(__name__)

_PATHS = tuple(
    f"/apis/admissionregistration.k8s.io/v1/{plural}/{name}"
    for plural, name in (
        ("mutatingwebhookconfigurations", MUTATING),
        ("validatingwebhookconfigurations", VALIDATING),
    )
)
_LOOK = 30.0
"""Seconds between two looks: a configuration that was applied anew has lost the CA, and nobody can write meanwhile."""
_RETRY = aio.Backoff(first=0.5, last=10.0)


class Registration:
    """Keeps the CA in both configurations."""

    def __init__(self, client: ApiClient, ca: Path) -> None:
        self._client = client
        self._ca = ca

    async def run(self) -> None:
        """Enter the CA until cancelled."""
        failures = 0
        while True:
            try:
                for path in _PATHS:
                    await self._enter(path)
                failures = 0
            except (ApiError, Unavailable) as error:
                failures += 1
                log.error("webhooks not registered: changes are refused until they are", reason=str(error))
            await asyncio.sleep(_RETRY.delay(failures) if failures else _LOOK)

    async def _enter(self, path: str) -> None:
        found = await self._client.get(path)
        bundle = base64.b64encode(self._ca.read_bytes()).decode()
        webhooks: list[Object] = found.get("webhooks") or []
        if all(webhook["clientConfig"].get("caBundle") == bundle for webhook in webhooks):
            return
        for webhook in webhooks:
            webhook["clientConfig"]["caBundle"] = bundle
        version = found["metadata"]["resourceVersion"]
        await self._client.merge(path, {"metadata": {"resourceVersion": version}, "webhooks": webhooks})
        log.info("webhooks registered", configuration=found["metadata"]["name"])
