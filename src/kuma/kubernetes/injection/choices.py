"""Annotations of a Pod that choose something about its sidecar, with the names and values of the original."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from kuma.base.errors import InvalidResource
from kuma.base.values import durations
from kuma.kubernetes.injection.options import Object
from kuma.kubernetes.workloads import metadata
from kuma.resources.codec import MESH_LABEL

VIRTUAL_PROBES, VIRTUAL_PROBES_PORT = "kuma.io/virtual-probes", "kuma.io/virtual-probes-port"
PROBE_PROXY_PORT = "kuma.io/application-probe-proxy-port"
ENVIRONMENT = "kuma.io/sidecar-env-vars"
CONCURRENCY = "kuma.io/sidecar-proxy-concurrency"
DRAIN_TIME = "kuma.io/sidecar-drain-time"
STOP_SECONDS = "kuma.io/workload-stop-seconds"
LOG_LEVEL = "kuma.io/envoy-log-level"
SIDECAR_UID = "kuma.io/sidecar-uid"
INIT_FIRST = "kuma.io/init-first"
NOT_INJECTED = "kuma.io/sidecar-not-injected"
"""Written on a Pod that should have had a sidecar and cannot: why."""
_TRAFFIC = "traffic.kuma.io/"
EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS = f"{_TRAFFIC}exclude-inbound-ports", f"{_TRAFFIC}exclude-outbound-ports"
EXCLUDE_INBOUND_IPS, EXCLUDE_OUTBOUND_IPS = f"{_TRAFFIC}exclude-inbound-ips", f"{_TRAFFIC}exclude-outbound-ips"
EXCLUDE_FOR_UIDS = f"{_TRAFFIC}exclude-outbound-ports-for-uids"
_USED = (
    metadata.MESH, metadata.GATEWAY, metadata.ADMIN_PORT, metadata.IP_FAMILY_MODE, metadata.REACHABLE_SERVICES,
    metadata.IGNORE, VIRTUAL_PROBES, VIRTUAL_PROBES_PORT, PROBE_PROXY_PORT, ENVIRONMENT, CONCURRENCY, DRAIN_TIME,
    STOP_SECONDS, LOG_LEVEL, INIT_FIRST, EXCLUDE_INBOUND_PORTS, EXCLUDE_OUTBOUND_PORTS, EXCLUDE_INBOUND_IPS,
    EXCLUDE_OUTBOUND_IPS, EXCLUDE_FOR_UIDS,
)  # fmt: skip
_WRITTEN = (
    metadata.INJECTED, metadata.TRANSPARENT, metadata.INBOUND_PORT, metadata.OUTBOUND_PORT, SIDECAR_UID, NOT_INJECTED,
)  # fmt: skip
_NO_DNS = "services have no names of their own here; call them by those of Kubernetes"
_NO_METRICS = "no metrics of applications are collected here"
_NO_EFFECT = {
    metadata.INJECTION: "make it a label",
    "kuma.io/container-patches": "nothing of the sidecar is patched here, also what should have made it safer",
    "kuma.io/service-account-token-volume": "the sidecar has a token of its own",
    "kuma.io/wait-for-dataplane-ready": "containers wait for the sidecar where the cluster has native sidecars, and "
    "not elsewhere",
    "kuma.io/direct-access-services": "services are called by their names, not by the addresses of their Pods",
    "kuma.io/reachable-backends": "use kuma.io/transparent-proxying-reachable-services",
    "kuma.io/envoy-component-log-level": "use kuma.io/envoy-log-level",
    "kuma.io/builtin-dns": _NO_DNS,
    "kuma.io/builtin-dns-port": _NO_DNS,
    "kuma.io/builtin-dns-logging": _NO_DNS,
    "kuma.io/transparent-proxying-ebpf": "traffic is redirected by iptables here",
    "kuma.io/ingress": "there is one zone",
    "kuma.io/egress": "there is one zone",
    "kuma.io/tags": "the labels of the Pod are its tags",
    "kuma.io/service-upstream": "",
    f"{_TRAFFIC}drop-invalid-packets": "",
    f"{_TRAFFIC}iptables-logs": "",
    f"{_TRAFFIC}transparent-proxy-configmap-name": "give the annotations of traffic.kuma.io/ themselves",
    f"{_TRAFFIC}exclude-outbound-tcp-ports-for-uids": f"use {EXCLUDE_FOR_UIDS}",
    f"{_TRAFFIC}exclude-outbound-udp-ports-for-uids": f"use {EXCLUDE_FOR_UIDS}",
}
_KNOWN = (*_USED, *_WRITTEN, *_NO_EFFECT)
_LABELS = (metadata.INJECTION, MESH_LABEL)
_METRICS = "prometheus.metrics.kuma.io/"
_LOG_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


def warnings(pod: Object) -> Iterator[str]:
    """Yields what is wrong or without effect among the annotations and labels of a Pod that are ours."""
    for name in filter(_is_ours, metadata.of(pod)):
        if name.startswith(_METRICS):
            yield f"annotation {name} has no effect here: {_NO_METRICS}"
        elif name in _NO_EFFECT:
            yield _told(f"annotation {name} has no effect here", _NO_EFFECT[name])
        elif name not in _KNOWN:
            yield f"annotation {name} is not known, and has no effect{_meant(name, _KNOWN)}"
    for name in filter(_is_ours, metadata.labels(pod)):
        if name not in _LABELS:
            close = _meant(name, _LABELS)
            if close:
                yield f"label {name} is not known, and has no effect{close}"


def _is_ours(name: str) -> bool:
    domain, slash, _ = name.partition("/")
    return bool(slash) and (domain == "kuma.io" or (domain.endswith(".kuma.io") and domain != "k8s.kuma.io"))


def _meant(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"; did you mean {close[0]}?" if close else ""


def _told(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


def environment(said: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that a Pod adds to its sidecar: `NAME=VALUE;NAME=VALUE`.

    Raises:
        InvalidResource: they are of another form.
    """
    found: dict[str, str] = {}
    for part in filter(str.strip, said.get(ENVIRONMENT, "").split(";")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise wrong(ENVIRONMENT, f'has to be NAME=VALUE;NAME=VALUE, got "{part[:100]}"')
        found[name.strip()] = value.strip()
    return found


def concurrency(said: Mapping[str, str]) -> int:
    """Returns the worker threads of Envoy: 2 if nothing is said, or if that is left to us by `0`.

    Raises:
        InvalidResource: it is no number.
    """
    return _number(said, CONCURRENCY) or 2


def _number(said: Mapping[str, str], name: str) -> int:
    text = said.get(name, "0")
    if not (text.isascii() and text.isdecimal()) or len(text) > 3:
        raise wrong(name, f'has to be a number, got "{text[:100]}"')
    return int(text)


def drain_time(said: Mapping[str, str], default: str) -> str:
    """Returns how long connections may last on at the end.

    Raises:
        InvalidResource: it is no duration.
    """
    text = said.get(DRAIN_TIME, default)
    try:
        durations.parse_go_duration(text)
    except ValueError as error:
        raise wrong(DRAIN_TIME, str(error)) from None
    return text


def stop_seconds(said: Mapping[str, str], default: int) -> int:
    """Returns the seconds that the containers of the workload are left before they are told to end.

    Raises:
        InvalidResource: it is no number.
    """
    return _number(said, STOP_SECONDS) if STOP_SECONDS in said else default


def log_level(said: Mapping[str, str]) -> str:
    """Returns the level of Envoy's log; empty if nothing is said.

    Raises:
        InvalidResource: there is no such level.
    """
    text = said.get(LOG_LEVEL, "")
    if text and text not in _LOG_LEVELS:
        raise wrong(LOG_LEVEL, f'has to be one of {", ".join(_LOG_LEVELS)}, got "{text[:100]}"')
    return text


def is_gateway(said: Mapping[str, str]) -> bool:
    """Tells whether a Pod takes requests from outside of the mesh by itself.

    Raises:
        InvalidResource: it is to be a gateway of another kind.
    """
    value = said.get(metadata.GATEWAY)
    if value in ("builtin", "provided"):
        raise wrong(
            metadata.GATEWAY, f'"{value}" is not done here, only "enabled": a gateway that is in the Pod itself'
        )
    return bool(metadata.flag(said, metadata.GATEWAY))


def wrong(name: str, reason: str) -> InvalidResource:
    """Returns the error of an annotation."""
    return InvalidResource.of(f'metadata.annotations["{name}"]', reason)
