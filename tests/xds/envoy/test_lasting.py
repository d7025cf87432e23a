"""What lasts of a proxy lasts no longer than what it was made of: after any change it is given what a new one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.node.capabilities import OLDEST, Capabilities
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource
from tests.fakes.views import arrived

NEWEST = Capabilities(waits_for_handshake=True, has_internal_listeners=True, reports=True)
WEB, SHOP = dataplane("web-01", "web", calls=("shop",)), dataplane("shop-01", "shop", port=81)
LOGGED = MTLS.removesuffix("}") + ", logging: {backends: [{name: f, type: file, conf: {path: /tmp/calls}}]}}"
BY_LABEL = (
    "{type: MeshTrafficPermission, mesh: default, name: by-label, spec: {targetRef: {kind: Dataplane, "
    "labels: {app: web}}, from: [{targetRef: {kind: MeshSubset, tags: {kuma.io/service: shop}}, "
    "default: {action: Allow}}]}}"
)
LOG_ALL = (
    "{type: TrafficLog, mesh: default, name: all, sources: [{match: {kuma.io/service: '*'}}], "
    "destinations: [{match: {kuma.io/service: '*'}}], conf: {backend: f}}"
)


def changed(*texts: str) -> Callable[[MeshView], MeshView]:
    def change(view: MeshView) -> MeshView:
        for text in texts:
            view = view.having(resource(text))
        return arrived(view)

    return change


def having(found: Resource[Any]) -> Callable[[MeshView], MeshView]:
    return lambda view: view.having(replace(found, version=2))


CHANGES: Mapping[str, Callable[[MeshView], MeshView]] = {
    "a permission": changed(ALLOW_ALL.replace("'*'", "shop", 1)),
    "a permission that looks at labels": lambda view: changed(BY_LABEL)(CHANGES["other labels"](view)),
    "another lifetime of connections": changed(
        MTLS.replace("builtin", "builtin, dpCert: {rotation: {expiration: 1h}}")
    ),
    "no mutual TLS": changed("{type: Mesh, name: default}"),
    "access logs": changed(LOGGED, LOG_ALL),
    "another protocol of whom it calls": having(
        resource(
            "{type: Dataplane, mesh: default, name: shop-01, networking: {address: 10.0.0.1, "
            "inbound: [{port: 81, servicePort: 981, tags: {kuma.io/service: shop, kuma.io/protocol: tcp}}]}}"
        )
    ),
    "another one of whom it calls": having(dataplane("shop-02", "shop", port=83)),
    "another inbound": having(dataplane("web-01", "web", port=84, calls=("shop",))),
    "another outbound": having(dataplane("web-01", "web", calls=("web", "shop"))),
    "other labels": having(replace(WEB, labels={"app": "web"})),
}


def run(config: MeshConfig, port: int = 9901, envoy: Capabilities = NEWEST) -> list[tuple[TypeUrl, str, bytes]]:
    """Returns what the proxy of web is sent, in order."""
    return [(kind, entry.name, entry.wire) for kind, entry in config.entries("web-01", port, envoy)]


@pytest.fixture
def before() -> MeshConfig:
    view = MeshView("default")
    for found in (resource(MTLS), resource(ALLOW_ALL), WEB, SHOP):
        view = view.having(found)
    config = MeshConfig(arrived(view))
    assert run(config) == run(config)
    return config


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_after_a_change_it_is_what_a_new_one_is_given(
    before: MeshConfig, change: Callable[[MeshView], MeshView]
) -> None:
    after = MeshConfig(change(before.view), before)
    for first, then in ((after, after), (before, after), (after, before)):  # some may still follow what was before
        assert run(first) == run(MeshConfig(first.view))
        assert run(then) == run(MeshConfig(then.view))
    labelled = MeshConfig(changed(BY_LABEL)(after.view), after)
    assert run(labelled) == run(MeshConfig(labelled.view))
    assert run(labelled) != run(before)


def test_another_envoy_is_given_what_it_can_do(before: MeshConfig) -> None:
    for port, envoy in ((9902, NEWEST), (9902, OLDEST), (0, OLDEST), (9901, NEWEST._replace(group="kuma-00"))):
        assert run(before, port, envoy) == run(MeshConfig(before.view), port, envoy)


def test_inbounds_that_are_withheld_are_served_no_more_and_again_when_they_are_not(before: MeshConfig) -> None:
    first = run(before)
    without = MeshConfig(before.view, before, withheld={"web-01": {0: "a reason"}})
    assert [one for one in first if one not in run(without)]
    assert run(without) == run(MeshConfig(before.view, withheld={"web-01": {0: "a reason"}}))
    assert run(MeshConfig(before.view, without)) == first


def test_of_a_changed_permission_only_the_inbounds_are_made_anew(before: MeshConfig) -> None:
    held = dict[tuple[TypeUrl, str], Any]()
    held.update(((kind, entry.name), entry) for kind, entry in before.entries("web-01", 9901, NEWEST))
    after = MeshConfig(CHANGES["a permission"](before.view), before)
    anew = {entry.name for kind, entry in after.entries("web-01", 9901, NEWEST) if held[kind, entry.name] is not entry}
    assert anew == {"inbound:10.0.0.1:80"}
