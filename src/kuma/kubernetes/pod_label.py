"""The label by which a Service finds the Pod of the control plane that leads: one Pod has it, whoever sets it."""

from __future__ import annotations

import asyncio

import structlog

from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.api.informer import Informer
from kuma.kubernetes.install.options import NAME
from kuma.kubernetes.install.workload import LEADER_LABEL

log = structlog.get_logger(__name__)

_RETRY = aio.Backoff(first=0.5, last=10.0)


class PodLabel:
    """The label of the Pod `pod`; without a name there is no Pod, and nothing is done.

    Who leads takes it from the others, too: one that hangs, or was killed, does not do that by itself.
    """

    def __init__(self, client: ApiClient, namespace: str, pod: str) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._pod = pod
        self._pods = Informer(client, self._path, labelSelector=f"app={NAME}")
        self._pods.on_change(lambda place: self._wake.set())
        self._leads = False
        self._wake = asyncio.Event()

    def put(self) -> None:
        """Have the Pod labelled from now on."""
        self._leads = True
        self._wake.set()

    async def take(self) -> None:
        """Take the label away."""
        self._leads = False
        if self._pod:
            await self._is_set(self._pod, None)

    async def run(self) -> None:
        """Keep the label where it belongs, until cancelled."""
        if not self._pod:
            await asyncio.get_running_loop().create_future()
        await aio.supervise([("Pods of control planes", self._pods), ("label of the leader", aio.Running(self._keep))])

    async def _keep(self) -> None:
        """Put the label right whenever a Pod changes."""
        await self._pods.listed.wait()
        failures = 0
        while True:
            self._wake.clear()
            failures = 0 if await self._is_put_right() else failures + 1
            try:
                async with asyncio.timeout(_RETRY.delay(failures) if failures else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _is_put_right(self) -> bool:
        done = []
        for (_, name), found in sorted(self._pods.objects.items()):
            has = LEADER_LABEL in (found["metadata"].get("labels") or {})
            wanted = self._leads and name == self._pod
            if has != wanted and (self._leads or name == self._pod):
                done.append(await self._is_set(name, "true" if wanted else None))
        return all(done)

    async def _is_set(self, pod: str, value: str | None) -> bool:
        try:
            await self._client.merge(f"{self._path}/{pod}", {"metadata": {"labels": {LEADER_LABEL: value}}})
        except (ApiError, Unavailable) as error:
            if isinstance(error, ApiError) and error.code == 404:
                return True  # it has gone
            log.error("a Pod of the control plane is not labelled", pod=pod, label=LEADER_LABEL, reason=str(error))
            return False
        return True
