"""The container that has the traffic of a Pod redirected to its sidecar, before anything else of the Pod runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kuma.kubernetes.injection import choices, options
from kuma.kubernetes.injection.options import INIT, UID, Ports, Sidecars
from kuma.kubernetes.workloads import metadata

_COMMAND = ("kumactl", "install", "transparent-proxy")
_REQUESTS = {"cpu": "20m", "memory": "64Mi"}
_LIMITS = {"cpu": "1000m", "memory": "128Mi"}
_FAMILIES = ("dualstack", "ipv4")


def container(said: Mapping[str, str], ports: Ports, chosen: Sidecars) -> dict[str, Any]:
    """Returns the container.

    Raises:
        InvalidResource: an annotation has a value that it cannot have.
    """
    return {
        "name": INIT,
        "image": chosen.init_image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(_COMMAND),
        "args": list(_arguments(said, ports)),
        "env": [{"name": "XTABLES_LOCKFILE", "value": "/tmp/xtables.lock"}],  # noqa: S108 - of the container
        "resources": {"requests": _REQUESTS, "limits": _LIMITS},
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False, "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": options.TMP_OF_INIT, "mountPath": "/tmp"}],  # noqa: S108
    }  # fmt: skip


def family_mode(said: Mapping[str, str]) -> str:
    """Returns the families of addresses that are redirected.

    Raises:
        InvalidResource: there is no such mode.
    """
    mode = said.get(metadata.IP_FAMILY_MODE, _FAMILIES[0]).lower()
    if mode not in _FAMILIES:
        raise choices.wrong(metadata.IP_FAMILY_MODE, f'has to be {" or ".join(_FAMILIES)}, got "{mode[:100]}"')
    return mode


def _arguments(said: Mapping[str, str], ports: Ports) -> Iterator[str]:
    inbound = "false" if choices.is_gateway(said) else "true"
    yield f"--kuma-dp-uid={UID}"
    yield f"--redirect-outbound-port={options.OUTBOUND_PORT}"
    yield f"--redirect-inbound={inbound}"
    yield f"--redirect-inbound-port={options.INBOUND_PORT}"
    yield f"--ip-family-mode={family_mode(said)}"
    own = ",".join(str(port) for port in ports.called_by_kubelet)
    excluded = ",".join(filter(None, (own, _value(said, choices.EXCLUDE_INBOUND_PORTS))))
    yield f"--exclude-inbound-ports={excluded}"
    for option, name in (
        ("--exclude-outbound-ports", choices.EXCLUDE_OUTBOUND_PORTS),
        ("--exclude-inbound-ips", choices.EXCLUDE_INBOUND_IPS),
        ("--exclude-outbound-ips", choices.EXCLUDE_OUTBOUND_IPS),
    ):
        if value := _value(said, name):
            yield f"{option}={value}"
    for rule in filter(None, _value(said, choices.EXCLUDE_FOR_UIDS).split(";")):
        yield f"--exclude-outbound-ports-for-uids={rule}"
    yield "--verbose"


def _value(said: Mapping[str, str], name: str) -> str:
    return "".join(said.get(name, "").split())
