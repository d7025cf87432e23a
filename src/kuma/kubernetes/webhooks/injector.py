"""Gives Pods their sidecars as they are created."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

from kuma.base.errors import InvalidResource
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.injection.options import Sidecars
from kuma.kubernetes.injection.pod import inject
from kuma.kubernetes.webhooks import answers
from kuma.kubernetes.webhooks import review as reviews
from kuma.kubernetes.webhooks.review import Review
from kuma.kubernetes.workloads import metadata
from kuma.resources import kinds
from kuma.store.manager import ResourceManager

log = structlog.get_logger(__name__)


class Injector:
    """Changes Pods of all namespaces but the control plane's own."""

    def __init__(self, client: ApiClient, manager: ResourceManager, sidecars: Sidecars, ca: Path, system: str) -> None:
        """`ca` is the file with the CA of the control plane, which may become another one; `system` its namespace."""
        self._client = client
        self._manager = manager
        self._sidecars = sidecars
        self._ca = ca
        self._system = system

    async def answer(self, review: Review) -> dict[str, Any]:
        """The answer to a request; it is always one. Nothing is written: what becomes of the Pod is not known yet."""
        return await answers.answered(review, self._injected)

    async def _injected(self, review: Review) -> dict[str, Any]:
        if review.new is None or review.kind != "Pod" or review.namespace == self._system:
            return reviews.allowed(review)
        # Whoever reaches this server may ask: what is no name is to lead nowhere else at the Kubernetes API.
        namespace = await self._client.get(f"/api/v1/namespaces/{quote(review.namespace, safe='')}")
        found = inject(review.new, namespace, replace(self._sidecars, ca_pem=self._ca.read_text()))
        for warning in found.warnings:
            log.warning("injection", namespace=review.namespace, pod=_name(review.new), reason=warning)
        if len(found.patch) > 1:
            await self._check_mesh(metadata.mesh_of(review.new, namespace))
        return reviews.allowed(review, found.warnings, found.patch)

    async def _check_mesh(self, mesh: str) -> None:
        """Checks that there is a mesh: in one that is not there the Pod would start and never serve."""
        if await self._manager.find(kinds.MESH.key(mesh)) is None:
            raise InvalidResource.of(f'metadata.annotations["{metadata.MESH}"]', f'meshes.kuma.io "{mesh}" not found')


def _name(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("name") or pod["metadata"].get("generateName") or "")
