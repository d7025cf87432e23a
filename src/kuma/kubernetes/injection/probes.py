"""Probes of the workload, which the sidecar asks in the kubelet's place: the kubelet has no part in the mesh.

Each probe asks the sidecar for a path of its own, and the sidecar asks what was asked before: nothing else of the
workload can be reached in plaintext that way. Probes that run a command stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from kuma.kubernetes.injection.options import Object

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS = ("postStart", "preStop")
_HANDLERS = ("httpGet", "tcpSocket", "grpc")
_TIMEOUT, _HOOK_TIMEOUT = 1, 30
"""Seconds: the default of a probe, and how long a hook may take here; Kubernetes sets it no limit."""
Target = dict[str, Any]


class Rewritten(NamedTuple):
    """Containers whose probes ask the sidecar, and what it asks for each path."""

    containers: list[Object]
    targets: dict[str, Target]
    warnings: list[str]


def rewrite(containers: Iterable[Object], port: int) -> Rewritten:
    """Has the probes of containers ask the sidecar at `port`."""
    found = Rewritten([], {}, [])
    for container in containers:
        found.containers.append(_rewritten(container, port, found))
    return found


def ports(containers: Iterable[Object]) -> frozenset[int]:
    """Returns the ports that are probed."""
    handlers = ((one, handler) for one in containers for handler in _handlers(one))
    return frozenset(filter(None, (_port(handler, container) for container, handler in handlers)))


def _handlers(container: Object) -> Iterator[Object]:
    lifecycle = container.get("lifecycle") or {}
    for part in (*(container.get(name) for name in _PROBES), *(lifecycle.get(name) for name in _HOOKS)):
        if part and any(name in part for name in _HANDLERS):
            yield part


def _rewritten(container: Object, port: int, into: Rewritten) -> Object:
    changed: dict[str, Any] = dict(container)
    for name in _PROBES:
        if container.get(name):
            seconds = int(container[name].get("timeoutSeconds") or _TIMEOUT)
            changed[name] = _asked(container[name], container, port, into, seconds)
    lifecycle = container.get("lifecycle")
    if lifecycle:
        given = {name: lifecycle[name] for name in _HOOKS if lifecycle.get(name)}
        hooks = {name: _asked(hook, container, port, into, _HOOK_TIMEOUT) for name, hook in given.items()}
        changed["lifecycle"] = {**lifecycle, **hooks}
    return changed


def _asked(part: Object, container: Object, port: int, into: Rewritten, seconds: int) -> Object:
    """Returns a probe or hook that asks the sidecar; as it was if it asks nothing that the mesh is before."""
    kind = next((name for name in _HANDLERS if part.get(name)), "")
    if not kind or part[kind].get("host"):  # of another address than the Pod's
        return part
    number = _port(part, container)
    if not number:
        named = f"container {container['name']} has no port {part[kind].get('port')}"
        into.warnings.append(f"{named}, which one of its probes asks: it stays as it is, and fails")
        return part
    path, target = _target(kind, part[kind], number)
    headers = part[kind].get("httpHeaders")
    known = into.targets.get(path, {})
    into.targets[path] = {
        **target,
        **_passed_on(known, headers or ()),
        "timeout": max(known.get("timeout", 0), seconds),
    }
    get = {"path": path, "port": port, "scheme": "HTTP", **({"httpHeaders": headers} if headers else {})}
    return {**{name: value for name, value in part.items() if name != kind}, "httpGet": get}


def _passed_on(known: Target, headers: Iterable[Mapping[str, Any]]) -> Target:
    """Returns the headers that the sidecar passes on: those of all probes with the same path, and no others."""
    given = [[str(header.get("name") or ""), str(header.get("value") or "")] for header in headers]
    found = [*known.get("headers", ()), *(one for one in given if one not in known.get("headers", ()))]
    return {"headers": found} if found else {}


def _target(kind: str, handler: Object, port: int) -> tuple[str, Target]:
    """Returns the path for a probe, as the original has it, and what is asked for it."""
    if kind == "tcpSocket":
        return f"/tcp/{port}", {"tcp": port}
    if kind == "grpc":
        service = handler.get("service") or ""
        return f"/grpc/{port}" + (f"/{quote(service, safe='')}" if service else ""), {"grpc": port, "service": service}
    path = "/" + str(handler.get("path") or "/").removeprefix("/")
    scheme = str(handler.get("scheme") or "HTTP").lower()
    before = "" if scheme == "http" else f"/{scheme}"
    return f"{before}/{port}{path}", {scheme: port, "path": path}


def _port(part: Object, container: Object) -> int:
    """Returns the number of the port that is probed; 0 if the container has none of that name."""
    kind = next(name for name in _HANDLERS if part.get(name))
    given = part[kind].get("port") or 0
    if isinstance(given, int) or str(given).isdecimal():
        return int(given)
    declared: Sequence[Mapping[str, Any]] = container.get("ports") or ()
    return next((int(one["containerPort"]) for one in declared if one.get("name") == given), 0)
