"""Which proxies serve their metrics, and where."""

from __future__ import annotations

import json
from pathlib import Path

from kuma.resources.view import MeshView
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import MTLS, resource, running

METRICS = (
    "metrics: {enabledBackend: p, backends: [{name: p, type: prometheus, conf: {port: 5670, path: /m, tags: {a: b}}}]}"
)
MESH = resource(f"{{type: Mesh, name: default, {METRICS}}}")
LISTENER = "kuma:metrics:prometheus"


def dataplane(name: str, address: str = "10.0.0.1", port: int = 80, metrics: str = "") -> str:
    return (
        f"{{type: Dataplane, mesh: default, name: {name}, networking: {{address: {address}, inbound: [{{port: {port}, "
        f"servicePort: {port + 9000}, tags: {{kuma.io/service: web}}}}]}}{metrics}}}"
    )


def serves(config: MeshConfig, name: str, admin_port: int = 9901) -> bool:
    return LISTENER in config.snapshot(name, {}, admin_port)[TypeUrl.LISTENER]


def test_one_of_those_with_an_address_and_port_serves_them_and_another_takes_its_place() -> None:
    first, second, elsewhere = (
        resource(dataplane("a", port=80)),
        resource(dataplane("b", port=81)),
        resource(dataplane("c", "10.0.0.2")),
    )
    view = MeshView("default").having(MESH).having(first).having(second).having(elsewhere)
    config = MeshConfig(view)
    assert [serves(config, name) for name in "abc"] == [True, False, True]
    assert config.not_served("a", 9901) == ()
    (told,) = config.not_served("b", 9901)
    assert told == (
        'metrics: nothing is served at 10.0.0.1:5670: Dataplane "a" has that address and port; '
        "set metrics.conf.port of the Dataplane"
    )

    gone = MeshConfig(view.following({first.key: None}), config)
    assert gone.affected_since(config) == {"a", "b"}
    assert serves(gone, "b")

    moved = resource(dataplane("b", port=81, metrics=", metrics: {type: prometheus, conf: {port: 5671}}"))
    both = MeshConfig(view.having(moved), config)
    assert both.affected_since(config) == {"b"}
    assert [serves(both, name) for name in "ab"] == [True, True]

    off = MeshConfig(view.having(resource("{type: Mesh, name: default}")), config)
    assert off.affected_since(config) == {"a", "b", "c"}
    assert not any(serves(off, name) for name in "abc")


def test_a_port_with_another_use_is_left_to_that_and_told() -> None:
    view = MeshView("default").having(MESH).having(resource(dataplane("a", port=5670)))
    config = MeshConfig(view)
    assert not serves(config, "a")
    assert "the port has another use there" in config.not_served("a", 9901)[0]
    free = MeshConfig(MeshView("default").having(MESH).having(resource(dataplane("a"))))
    assert not serves(free, "a", admin_port=0)
    assert not serves(free, "a", admin_port=5670)


def test_a_host_name_without_an_address_serves_none_and_is_told() -> None:
    config = MeshConfig(MeshView("default").having(MESH).having(resource(dataplane("a", "proxy.example"))))
    assert "the host name has no address now" in config.not_served("a", 9901)[0]
    assert not [entry for _, entry in config._metrics_of("a", config.view.dataplanes["a"], 9901)]


async def test_it_is_shown_that_metrics_are_not_served(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS.replace("type: Mesh, name: default,", f"type: Mesh, name: default, {METRICS},"))
        described = resource(dataplane("a", port=5670))
        proxy = await cp.proxy(described)
        await proxy.until(lambda: proxy.held[TypeUrl.LISTENER])
        insight = await cp.insight(described, lambda found: found.withheld_inbounds)
        assert "metrics: nothing is served at 10.0.0.1:5670" in json.dumps(insight.withheld_inbounds)
