"""The label by which a Service finds the Pod of the control plane that leads."""

from __future__ import annotations

import structlog

from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.install.workload import LEADER_LABEL

log = structlog.get_logger(__name__)


class PodLabel:
    """The label of one Pod; without a name there is no Pod, and nothing is done."""

    def __init__(self, client: ApiClient, namespace: str, pod: str) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}/pods/{pod}" if pod else ""

    async def put(self) -> None:
        """Label the Pod."""
        await self._set("true")

    async def take(self) -> None:
        """Take the label away, one from before a restart too."""
        await self._set(None)

    async def _set(self, value: str | None) -> None:
        if not self._path:
            return
        try:
            await self._client.merge(self._path, {"metadata": {"labels": {LEADER_LABEL: value}}})
        except (ApiError, Unavailable) as error:
            log.error("the Pod of the control plane is not labelled", label=LEADER_LABEL, reason=str(error))
