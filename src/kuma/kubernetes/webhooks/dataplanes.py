"""Judges Dataplanes that others than the control plane write.

The one of a Pod with a sidecar follows from the Pod: who may write Dataplanes does not say by it what the Pod is, nor
take it out of the mesh. Others are not at the addresses of Pods and Services, for which they would be called.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import quote

from kuma.base.errors import AccessDenied, InvalidResource, Violation
from kuma.base.values import addresses
from kuma.kubernetes.api.client import ApiClient, Object
from kuma.kubernetes.webhooks.review import Review
from kuma.kubernetes.workloads import hand_made, metadata
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource


class _Owners(NamedTuple):
    """Objects that have addresses: the first one can be asked for, all of them are in a list."""

    path: str
    kind: str
    selected_by: str
    block: str
    listed: str

    def addresses(self, found: Object) -> list[str]:
        """Returns all addresses of an object, of either version of IP."""
        said = (found.get(self.block) or {}).get(self.listed) or ()
        return [str(one["ip"] if isinstance(one, dict) else one) for one in said]


_OWNERS = (
    _Owners("/api/v1/pods", "Pod", "status.podIP", "status", "podIPs"),
    _Owners("/api/v1/services", "Service", "spec.clusterIP", "spec", "clusterIPs"),
)
_FIRST = "/api/v1/namespaces/default/services/kubernetes"
"""The Service of the API server, which has an address of the version of IP that is first in the cluster."""


class DataplaneRules:
    """Looks at Pods and Services as they are at the API server now: every control plane judges, led or not."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._turn = asyncio.Lock()  # of who looks at everything: one at a time

    async def check_not_of_a_pod(self, review: Review) -> None:
        """Check that a Dataplane is not the one of a Pod.

        Raises:
            AccessDenied: it is.
        """
        path = f"/api/v1/namespaces/{quote(review.namespace, safe='')}/pods/{quote(review.name, safe='')}"
        pod = await self._client.find(path)
        if pod is not None and metadata.is_injected(pod):
            raise AccessDenied(
                f"the Dataplane {review.name} follows from the Pod of its name and its Services: change these"
            )

    async def check_place(self, review: Review, dataplane: Resource[DataplaneSpec]) -> None:
        """Check that a Dataplane says nothing that only the control plane knows, and is nobody else's place.

        Raises:
            InvalidResource: it does, or is.
        """
        networking = dataplane.spec.net
        found = list(hand_made.violations(networking, dataplane.labels, review.namespace))
        for address, field in hand_made.addresses(networking).items():
            if owner := await self._owner(address):
                found.append(Violation(field, f"{address} is the address of {owner}"))
        if found:
            raise InvalidResource(found)

    async def _owner(self, address: str) -> str:
        """Returns whose address it is; empty if it is nobody's, or is no address of IP."""
        parsed = addresses.parse(address)
        if parsed is None:
            return ""
        is_second = parsed.version != await self._first_version()
        for owners in _OWNERS:
            for one in filter(_has_an_address_of_its_own, await self._at(owners, address, is_second=is_second)):
                return f"{owners.kind} {one['metadata']['name']} in {one['metadata']['namespace']}"
        return ""

    async def _at(self, owners: _Owners, address: str, *, is_second: bool) -> list[Object]:
        """Returns who has an address. By their second ones they cannot be asked for: these are looked for among all."""
        found, _ = await self._client.list(owners.path, fieldSelector=f"{owners.selected_by}={address}")
        if is_second and not found:
            async with self._turn:
                everyone, _ = await self._client.list(owners.path)
            found = [one for one in everyone if address in owners.addresses(one)]
        return found

    async def _first_version(self) -> int:
        """Returns the version of IP of which all first addresses in the cluster are; 0 if that is not known."""
        found = await self._client.find(_FIRST)
        parsed = addresses.parse(str(found["spec"].get("clusterIP"))) if found is not None else None
        return parsed.version if parsed is not None else 0


def _has_an_address_of_its_own(found: Object) -> bool:
    """Tells that an object is no Pod that has the address of its node, or has ended and left its address to others."""
    ended = (found.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not ended and not (found.get("spec") or {}).get("hostNetwork")
