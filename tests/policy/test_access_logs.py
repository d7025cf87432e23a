"""Which access logs a call goes to, and which formats are taken."""

from __future__ import annotations

import pytest

from kuma.base.errors import InvalidResource
from kuma.policy.access_logs import AccessLogs
from kuma.resources import kinds
from kuma.resources.models.blocks import log_format
from kuma.resources.view import MeshView
from tests.fakes.control_plane import resource

MESH = (
    "{type: Mesh, name: default, logging: {defaultBackend: a, backends: [{name: a, type: file, conf: {path: /a}}, "
    "{name: b, type: file, format: '%KUMA_MESH%', conf: {path: /b}}, {name: c, type: tcp, conf: {address: 'c:1'}}]}}"
)
WEB = resource(
    "{type: Dataplane, mesh: default, name: web-1, networking: {address: 10.0.0.1, inbound: [{port: 80, "
    "servicePort: 8080, tags: {kuma.io/service: web, version: v1}}]}}"
)
GATEWAY = resource(
    "{type: Dataplane, mesh: default, name: edge-1, networking: {address: 10.0.0.1, "
    "gateway: {tags: {kuma.io/service: edge}}}}"
)


def traffic_log(name: str, source: str, destination: str, backend: str) -> str:
    return (
        f"{{type: TrafficLog, mesh: default, name: {name}, sources: [{{match: {{kuma.io/service: '{source}'}}}}], "
        f"destinations: [{{match: {{kuma.io/service: '{destination}'}}}}], conf: {{backend: '{backend}'}}}}"
    )


def policy(name: str, target: str, items: str) -> str:
    return f"{{type: MeshAccessLog, mesh: default, name: {name}, spec: {{targetRef: {target}, {items}}}}}"


def to(kind: str, *paths: str) -> str:
    backends = ", ".join(f"{{file: {{path: {path}}}}}" for path in paths)
    return f"to: [{{targetRef: {kind}, default: {{backends: [{backends}]}}}}]"


def logs(*texts: str) -> AccessLogs:
    view = MeshView("default")
    for text in texts:
        view = view.having(resource(text))
    assert view.mesh
    return AccessLogs(view.mesh.spec.logging, view.traffic_logs, view.mesh_access_logs)


def paths(found: AccessLogs, dataplane: object = WEB, service: str = "backend") -> list[str]:
    return [sink.path for sink in found.of_outbound(dataplane, service)]  # type: ignore[arg-type]


def test_the_most_specific_traffic_log_wins() -> None:
    everything, one = traffic_log("all", "*", "*", ""), traffic_log("one", "web", "backend", "b")
    assert logs(MESH, everything).of_inbound(WEB, WEB.spec.net.inbound[0]) == ()
    assert paths(logs(MESH)) == []
    assert paths(logs(MESH, everything)) == ["/a"]  # the default
    assert paths(logs(MESH, everything, one)) == ["/b"]
    assert paths(logs(MESH, everything, one), service="other") == ["/a"]
    assert paths(logs(MESH, everything, one), GATEWAY) == ["/a"]
    assert paths(logs(MESH, everything, traffic_log("c", "web", "*", "c"))) == []  # it is written nowhere here


def test_a_mesh_access_log_wins_and_the_most_specific_of_them() -> None:
    base = (MESH, traffic_log("all", "*", "*", ""), policy("all", "{kind: Mesh}", to("{kind: Mesh}", "/m", "/n")))
    assert paths(logs(*base)) == ["/m", "/n"]
    subset = policy("v1", "{kind: MeshSubset, tags: {version: v1}}", to("{kind: MeshService, name: backend}", "/v1"))
    assert paths(logs(*base, subset)) == ["/v1"]
    assert paths(logs(*base, subset), service="other") == ["/m", "/n"]
    assert paths(logs(*base, subset), GATEWAY) == ["/m", "/n"]
    silent = policy("silent", "{kind: MeshService, name: web}", to("{kind: Mesh}"))
    assert paths(logs(*base, subset, silent)) == []
    inbound = policy(
        "in", "{kind: Mesh}", "from: [{targetRef: {kind: Mesh}, default: {backends: [{file: {path: /i}}]}}]"
    )
    assert [sink.path for sink in logs(*base, inbound).of_inbound(WEB, WEB.spec.net.inbound[0])] == ["/i"]


@pytest.mark.parametrize(
    "text",
    ["%", "50% of", "%START_TIME", "%NONE%", "%ENVIRONMENT(HOME)%", "%CEL(xds.node.metadata)%", "%REQ%", "%REQ()%",
     "%REQ(a b)%", "%RESP(A?B):x%", "%START_TIME(%Q)%", "%PROTOCOL(x)%", "%KUMA_NONE%", "\0"],
)  # fmt: skip
def test_a_format_that_envoy_would_refuse_is_refused(text: str) -> None:
    assert list(log_format.mistakes(text))


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (MESH.replace("'%KUMA_MESH%'", "'%NONE%'"), "logging.backends[1].format"),
        (MESH.replace("path: /a", "path: access.log"), "logging.backends[0].conf.path"),
        (MESH.replace("defaultBackend: a", "defaultBackend: z"), "logging.defaultBackend"),
        (MESH.replace("type: tcp", "type: kafka"), "logging.backends[2].type"),
        (policy("p", "{kind: Mesh}", to("{kind: Mesh}", "relative")), "spec.to[0].default.backends[0].file.path"),
        (
            policy("p", "{kind: Mesh}", "to: [{targetRef: {kind: Mesh}, default: {backends: [{type: File}]}}]"),
            "spec.to[0].default.backends[0]",
        ),
    ],
)
def test_what_could_not_be_written_is_refused_by_name(document: str, field: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        resource(document)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_what_is_written_nowhere_is_told() -> None:
    (told,) = kinds.MESH.not_done(resource(MESH).spec)
    assert told.field == "logging.backends[2].type"


def test_own_operators_are_filled_in() -> None:
    assert log_format.filled("%KUMA_MESH% %% %PROTOCOL%", {"KUMA_MESH": "m"}) == "m %% %PROTOCOL%"
    for default in (log_format.DEFAULT_TCP, log_format.DEFAULT_HTTP):
        assert not list(log_format.mistakes(default))
