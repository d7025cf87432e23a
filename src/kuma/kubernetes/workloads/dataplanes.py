"""The Dataplane of a Pod, as the original makes it: its services are its identities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kuma.base.errors import InvalidResource
from kuma.kubernetes.workloads import metadata, services
from kuma.kubernetes.workloads.services import ServicePort
from kuma.resources import tags

Object = Mapping[str, Any]
SIDECAR = "kuma-sidecar"
SERVICELESS_PORT = 49151
"""Of the one inbound of a Pod that no Service leads to: nothing listens there, and it gives the Pod an identity."""
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def is_wanted(pod: Object) -> bool:
    """Tells whether a Pod is to have a Dataplane now: it has a sidecar and an address, and has not ended."""
    status = pod.get("status") or {}
    ended = status.get("phase") in ("Succeeded", "Failed") or status.get("reason") == "Evicted"
    return metadata.is_injected(pod) and bool(status.get("podIP")) and not ended


def spec(pod: Object, leading: Iterable[Object], slices: Iterable[Object], owner: str, zone: str) -> dict[str, Any]:
    """The content of the Dataplane of a Pod, given the Services of its namespace. `owner` is the workload's name.

    Raises:
        InvalidResource: an annotation has a value that it cannot have.
    """
    ports = _by_one_protocol(list(services.ports(pod, services.selecting(pod, leading, slices))))
    inbound = [_inbound(pod, port, zone) for port in ports] or [_serviceless(pod, owner, zone)]
    said = metadata.of(pod)
    networking: dict[str, Any] = {"address": pod["status"]["podIP"]}
    if (admin := metadata.port(said, metadata.ADMIN_PORT)) != 0:
        networking["admin"] = {"port": admin}
    if said.get(metadata.GATEWAY) == "enabled":
        networking["gateway"] = {"type": "DELEGATED", "tags": _of_gateway(inbound[0]["tags"])}
    else:
        networking["inbound"] = inbound
    if metadata.flag(said, metadata.TRANSPARENT):
        networking["transparentProxying"] = _transparent(said)
    return {"networking": networking}


def _by_one_protocol(ports: Sequence[ServicePort]) -> list[ServicePort]:
    """Returns ports with one protocol for each port of the Pod, to which several Services may lead.

    It is the one that Services name; TCP, in which all others can be spoken, if none does or they do not agree.
    """
    named: dict[int, set[str]] = {}
    for port in ports:
        named.setdefault(port.target, set()).update({port.protocol} - {""})
    agreed = {target: found.pop() if len(found) == 1 else "tcp" for target, found in named.items()}
    return [port._replace(protocol=agreed[port.target]) for port in ports]


def _inbound(pod: Object, port: ServicePort, zone: str) -> dict[str, Any]:
    namespace = pod["metadata"]["namespace"]
    found = {
        **_labels(pod),
        tags.SERVICE: f"{port.service}_{namespace}_svc_{port.port}",
        tags.PROTOCOL: port.protocol,
        "kuma.io/zone": zone,
        "k8s.kuma.io/namespace": namespace,
        "k8s.kuma.io/service-name": port.service,
        "k8s.kuma.io/service-port": str(port.port),
        **{f"{tags.SERVICE_ADDRESS}{address}": port.service for address in port.called_at},
        **{f"{tags.ALSO_AT}{address}": pod["metadata"]["name"] for address in _other_addresses(pod)},
    }
    if port.headless:
        found["kuma.io/instance"] = pod["metadata"]["name"]
    ready = _is_ready(pod, (port.container, SIDECAR) if port.container else (SIDECAR,))
    return {**_at(pod, port.target), "tags": found, **_state(ready)}


def _serviceless(pod: Object, owner: str, zone: str) -> dict[str, Any]:
    namespace = pod["metadata"]["namespace"]
    found = {
        **_labels(pod),
        tags.SERVICE: f"{owner}_{namespace}_svc",
        tags.PROTOCOL: "tcp",
        "kuma.io/zone": zone,
        "kuma.io/instance": pod["metadata"]["name"],
        "k8s.kuma.io/namespace": namespace,
    }
    names = [container["name"] for container in pod["spec"].get("containers") or ()]
    return {**_at(pod, SERVICELESS_PORT), "tags": found, **_state(_is_ready(pod, names))}


def _other_addresses(pod: Object) -> list[str]:
    """Returns the addresses of a Pod besides the first one at which what comes in is brought to its sidecar."""
    said, status = metadata.of(pod), pod["status"]
    if not metadata.flag(said, metadata.TRANSPARENT) or said.get(metadata.GATEWAY) == "enabled":
        return []
    only_4 = said.get(metadata.IP_FAMILY_MODE) == "ipv4"
    found = [str(one["ip"]) for one in status.get("podIPs") or ()]
    return [one for one in found if one != status["podIP"] and not (only_4 and ":" in one)]


def _at(pod: Object, port: int) -> dict[str, Any]:
    """Returns where Envoy takes the workload's place: at the same port, of the loopback unless all is redirected."""
    if metadata.flag(metadata.of(pod), metadata.TRANSPARENT):
        return {"port": port}
    family = 6 if ":" in pod["status"]["podIP"] else 4
    return {"port": port, "serviceAddress": _LOOPBACK[family]}


def _labels(pod: Object) -> dict[str, str]:
    """Returns the labels that become tags: none of ours, by which a Pod could say that it is another service."""
    return {name: value for name, value in metadata.labels(pod).items() if value and metadata.RESERVED not in name}


def _of_gateway(found: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if name != tags.PROTOCOL}


def _is_ready(pod: Object, containers: Sequence[str]) -> bool:
    """Tells whether callers may be sent to a Pod: these of its containers are ready, and it is not ending.

    A condition that the Pod has as a gate counts, too.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return False
    status = pod.get("status") or {}
    statuses = [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]
    ready = {found["name"]: bool(found.get("ready")) for found in statuses}
    gates = {gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()}
    met = {c["type"] for c in status.get("conditions") or () if c.get("status") == "True"}
    return gates <= met and all(ready.get(name, False) for name in containers)


def _state(ready: bool) -> dict[str, Any]:
    return {"health": {"ready": True}} if ready else {"state": "NotReady", "health": {"ready": False}}


def _transparent(said: Mapping[str, str]) -> dict[str, Any]:
    inbound = metadata.port(said, metadata.INBOUND_PORT)
    outbound = metadata.port(said, metadata.OUTBOUND_PORT)
    if not inbound or not outbound:
        raise InvalidResource.of(metadata.INBOUND_PORT, "the ports of transparent proxying are missing")
    found: dict[str, Any] = {"redirectPortInbound": inbound, "redirectPortOutbound": outbound}
    if said.get(metadata.IP_FAMILY_MODE):
        found["ipFamilyMode"] = {"ipv4": "IPv4"}.get(said[metadata.IP_FAMILY_MODE], "DualStack")
    if said.get(metadata.REACHABLE_SERVICES):
        found["reachableServices"] = [name.strip() for name in said[metadata.REACHABLE_SERVICES].split(",")]
    return found


def owner_name(pod: Object, controllers: Mapping[tuple[str, str], Object]) -> str:
    """The name of the workload that a Pod is of: of its Deployment, CronJob, StatefulSet, ..., or its own.

    `controllers` has the ReplicaSets and Jobs that are known, by kind and name.
    """
    named = str(pod["metadata"]["name"])
    found: Object | None = pod
    while found is not None:
        owners = [owner for owner in found["metadata"].get("ownerReferences") or () if owner.get("controller")]
        if not owners:
            return named
        named = str(owners[0]["name"])
        found = controllers.get((str(owners[0]["kind"]), named))
    return named
