"""What a Pod becomes that gets a sidecar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kuma.base.errors import InvalidResource, Violation
from kuma.kubernetes.injection import choices, decision, ending, init_container, options, probes, sidecar
from kuma.kubernetes.injection.options import INBOUND_PORT, OUTBOUND_PORT, UID, Object, Ports, Sidecars
from kuma.kubernetes.workloads import metadata

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_TMP_SIZE = "10M"


class Injected(NamedTuple):
    """A change of a Pod, as a JSON patch (RFC 6902) that is empty if it stays as it is, and what is to be told."""

    patch: list[dict[str, Any]]
    warnings: list[str]


def inject(pod: Object, namespace: Object, chosen: Sidecars) -> Injected:
    """Gives a Pod of a namespace its sidecar, if it is to have one.

    Raises:
        InvalidResource: it is to have one and cannot, because it says something about it that is wrong.
    """
    told = list(choices.warnings(pod))
    if not decision.is_wanted(pod, namespace):
        return Injected([], told)
    if decision.has_sidecar(pod):
        return Injected([], told if metadata.is_injected(pod) else [*told, _BY_HAND])
    if reason := decision.obstacle(pod):
        note = {**metadata.of(pod), choices.NOT_INJECTED: reason}
        return Injected(
            [_set("/metadata/annotations", note)], [*told, f"no sidecar is injected into this Pod: {reason}"]
        )
    _check_users(pod)
    said = metadata.of(pod)
    ports = _ports(pod, said)
    changed = _Changed(pod, said, metadata.mesh_of(pod, namespace), ports, chosen)
    return Injected(changed.patch, [*told, *changed.warnings])


_BY_HAND = (
    f"this Pod has a container {options.SIDECAR} and nothing is injected; without the annotation {metadata.INJECTED}: "
    '"true" it has no Dataplane'
)


class _Changed:
    """The parts of a Pod that change."""

    def __init__(self, pod: Object, said: Mapping[str, str], mesh: str, ports: Ports, chosen: Sidecars) -> None:
        spec = pod["spec"]
        before, after = list(spec.get("initContainers") or ()), list(spec.get("containers") or ())
        asked = probes.Rewritten([*before, *after], {}, [])
        if ports.probes:
            asked = probes.rewrite([*before, *after], ports.probes)
        before, after = asked.containers[: len(before)], asked.containers[len(before) :]
        self.warnings = asked.warnings
        after = ending.waiting(pod, after, choices.stop_seconds(said, chosen.stop_seconds))
        redirecting = init_container.container(said, ports, chosen)
        serving = sidecar.container(said, mesh, ports, asked.targets, chosen)
        if chosen.native:
            before = [redirecting, serving, *before]
        else:
            first = metadata.flag(said, choices.INIT_FIRST)
            before = [redirecting, *before] if first else [*before, redirecting]
            after = [serving, *after]
        self.patch = [
            _set("/metadata/annotations", {**_default_container(pod), **said, **_written(said, mesh, ports)}),
            _set("/spec/initContainers", before),
            _set("/spec/containers", after),
            _set("/spec/volumes", [*(spec.get("volumes") or ()), *_volumes(chosen)]),
        ]


def _set(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}  # of a member that is there already: replaces it


def _ports(pod: Object, said: Mapping[str, str]) -> Ports:
    """Returns ports of the sidecar that the workload does not say it has; those that were chosen as they were.

    Raises:
        InvalidResource: one that was chosen, or that cannot be chosen, is the workload's.
    """
    taken = options.declared_ports(options.containers(pod))
    for port in (INBOUND_PORT, OUTBOUND_PORT):
        if port in taken:
            raise InvalidResource.of("spec.containers", f"port {port} is the sidecar's: let the container have another")
    admin = _chosen(said, metadata.ADMIN_PORT, taken) or _free(options.ADMIN_PORT, taken)
    readiness = _free(options.READINESS_PORT, taken | {admin})
    return Ports(admin, readiness, _probes_port(pod, said, taken | {admin, readiness}))


def _probes_port(pod: Object, said: Mapping[str, str], taken: frozenset[int]) -> int:
    """Returns where the sidecar asks the workload's probes; 0 if they reach it without being redirected."""
    wanted = metadata.flag(said, choices.VIRTUAL_PROBES)
    if choices.is_gateway(said) or wanted is False:
        return 0
    asked = taken | probes.ports(options.containers(pod))
    chosen = _chosen(said, choices.VIRTUAL_PROBES_PORT, asked)
    return chosen or _chosen(said, choices.PROBE_PROXY_PORT, asked) or _free(options.PROBES_PORT, asked)


def _chosen(said: Mapping[str, str], name: str, taken: frozenset[int]) -> int:
    port = metadata.port(said, name)
    if port in taken:
        raise choices.wrong(name, f"port {port} is taken by a container or a probe of this Pod; choose another")
    return port


def _free(port: int, taken: frozenset[int]) -> int:
    while port in taken:
        port += 10  # those next to it are the sidecar's, too
    return port


def _check_users(pod: Object) -> None:
    """Checks that nothing but the sidecar has its user: what has is not redirected, and speaks past the mesh."""
    of_pod = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    wrong = [name for name, user in _users(options.containers(pod), of_pod) if user == UID]
    if wrong:
        listed = ", ".join(f'"{name}"' for name in wrong)
        raise InvalidResource(
            [Violation("spec.containers", f"containers using same UID as sidecar is unsupported: [{listed}]")]
        )


def _users(found: Iterable[Object], of_pod: int | None) -> Iterable[tuple[str, int | None]]:
    for one in found:
        yield one["name"], (one.get("securityContext") or {}).get("runAsUser", of_pod)


def _default_container(pod: Object) -> dict[str, str]:
    named = [container["name"] for container in pod["spec"].get("containers") or ()]
    return {_DEFAULT_CONTAINER: named[0]} if len(named) == 1 else {}


def _written(said: Mapping[str, str], mesh: str, ports: Ports) -> dict[str, str]:
    """Returns the annotations that tell what was injected; the Dataplane of the Pod is made after them."""
    found = {
        metadata.INJECTED: "true",
        metadata.MESH: mesh,
        choices.SIDECAR_UID: str(UID),
        metadata.TRANSPARENT: "enabled",
        metadata.INBOUND_PORT: str(INBOUND_PORT),
        metadata.OUTBOUND_PORT: str(OUTBOUND_PORT),
        metadata.IP_FAMILY_MODE: init_container.family_mode(said),
        metadata.ADMIN_PORT: str(ports.admin),
        choices.VIRTUAL_PROBES: "enabled" if ports.probes else "disabled",
    }
    if ports.probes:
        found[choices.VIRTUAL_PROBES_PORT] = str(ports.probes)
    if choices.is_gateway(said):
        found[metadata.GATEWAY] = "enabled"
    return found


def _volumes(chosen: Sidecars) -> list[dict[str, Any]]:
    token = {
        "audience": chosen.audience, "expirationSeconds": options.TOKEN_SECONDS, "path": options.TOKEN_FILE,
    }  # fmt: skip
    projected = {"sources": [{"serviceAccountToken": token}]}
    empty = {"sizeLimit": _TMP_SIZE}
    return [
        {"name": options.TOKEN_VOLUME, "projected": projected},
        {"name": options.TMP_OF_SIDECAR, "emptyDir": empty},
        {"name": options.TMP_OF_INIT, "emptyDir": empty},
    ]
