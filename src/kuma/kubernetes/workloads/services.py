"""Which Services a Pod belongs to, and at which of its ports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kuma.base.errors import InvalidResource
from kuma.kubernetes.workloads import metadata

Object = Mapping[str, Any]
_PROTOCOLS = ("grpc", "http", "http2", "kafka", "tcp")


class ServicePort(NamedTuple):
    """A port of a Service, and the port of the Pod that it leads to; `container` is the one that declares it."""

    service: str
    port: int
    target: int
    protocol: str
    headless: bool
    container: str
    called_at: tuple[str, ...] = ()
    """Addresses and ports at which this is called, as `10.96.0.5:80`."""


def selecting(pod: Object, services: Iterable[Object], slices: Iterable[Object] = ()) -> list[Object]:
    """The Services that lead to a Pod, by name: by their selector, or, without one, by an EndpointSlice."""
    uid = pod["metadata"].get("uid")
    named = {
        metadata.labels(found).get("kubernetes.io/service-name")
        for found in slices
        if any((end.get("targetRef") or {}).get("uid") == uid for end in found.get("endpoints") or ())
    }
    return sorted(
        (service for service in services if _leads_to(pod, service, named)),
        key=lambda service: str(service["metadata"]["name"]),
    )


def _leads_to(pod: Object, service: Object, named: set[str | None]) -> bool:
    named_by, spec = service["metadata"], service.get("spec") or {}
    if named_by["namespace"] != pod["metadata"]["namespace"] or spec.get("type") == "ExternalName":
        return False
    if metadata.flag(metadata.of(service), metadata.IGNORE):
        return False
    selector = spec.get("selector")
    if not selector:  # such as `kubernetes`: it leads to whatever somebody says that it does
        return named_by["name"] in named
    labels = metadata.labels(pod)
    return all(labels.get(name) == value for name, value in selector.items())


def ports(pod: Object, services: Iterable[Object]) -> Iterator[ServicePort]:
    """The ports of these Services that the Pod has.

    Raises:
        InvalidResource: an annotation of a Service has a value that it cannot have.
    """
    sidecars = (one for one in pod["spec"].get("initContainers") or () if one.get("restartPolicy") == "Always")
    containers = [*(pod["spec"].get("containers") or ()), *sidecars]
    for service in services:
        spec = service.get("spec") or {}
        for port in spec.get("ports") or ():
            if port.get("protocol", "TCP") != "TCP":
                continue
            target, container = _target(port, containers)
            name = service["metadata"]["name"]
            if target:
                yield ServicePort(
                    service=name,
                    port=int(port["port"]),
                    target=target,
                    protocol=_protocol(service, port),
                    headless=spec.get("clusterIP") == "None",
                    container=container,
                    called_at=tuple(f"{address}:{port['port']}" for address in _addresses(spec)),
                )


def _addresses(spec: Object) -> list[str]:
    """Returns the addresses of a Service, of either version of IP; none of a headless one."""
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return [str(address) for address in found if address not in (None, "", "None")]


def _target(port: Object, containers: Sequence[Object]) -> tuple[int, str]:
    """Returns the port of the Pod, and the container that declares it; 0 if there is none of that name."""
    wanted = port.get("targetPort", port["port"])
    for container in containers:
        for declared in container.get("ports") or ():
            if declared.get("protocol", "TCP") == "TCP" and wanted in (declared.get("name"), declared["containerPort"]):
                return int(declared["containerPort"]), str(container["name"])
    return (wanted, "") if isinstance(wanted, int) else (0, "")


def _protocol(service: Object, port: Object) -> str:
    """Returns the protocol that a Service says is spoken at a port: `appProtocol`, or else the annotation, or nothing.

    Raises:
        InvalidResource: the annotation has another value than a protocol.
    """
    said = str(port.get("appProtocol") or "").lower()
    if said in _PROTOCOLS:
        return said
    name = metadata.PROTOCOL.format(port=port["port"])
    annotated = metadata.of(service).get(name, "").lower()
    if annotated and annotated not in _PROTOCOLS:
        field = f'Service {service["metadata"]["name"]}: metadata.annotations["{name}"]'
        raise InvalidResource.of(
            field, f'value "{annotated[:100]}" is not valid. Allowed values: {", ".join(_PROTOCOLS)}'
        )
    return annotated
