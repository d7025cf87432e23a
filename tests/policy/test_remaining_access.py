"""Whom an inbound admits, in words."""

from __future__ import annotations

from kuma.policy import remaining_access
from kuma.policy.permissions import Permissions
from kuma.policy.succession import Stage
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec, Position
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import ALLOW_ALL, dataplane, resource

BACKEND = dataplane("backend-01", "backend")
ONLY_WEB = ALLOW_ALL.replace("'*'", "web", 1)
BUT_NOT_EAST = (
    "{type: MeshTrafficPermission, mesh: default, name: some, spec: {targetRef: {kind: Mesh}, from: ["
    "{targetRef: {kind: Mesh}, default: {action: Allow}}, "
    "{targetRef: {kind: MeshSubset, tags: {region: east}}, default: {action: Deny}}]}}"
)


def said(level: Level, *texts: str) -> tuple[str, ...]:
    spec = MeshTransitionSpec(position=Position(level=level))
    view = MeshView("default").having(Resource(kinds.MESH_TRANSITION.key("default", "default"), spec)).having(BACKEND)
    for text in texts:
        view = view.having(resource(text))
    return remaining_access.admits(view, MeshConfig(view).admissions.admission_of, "backend-01")


def test_by_permissions() -> None:
    assert said(Level.STRICT) == ("backend:80: nobody",)
    assert said(Level.STRICT, ONLY_WEB) == ("backend:80: web",)
    assert said(Level.STRICT, ALLOW_ALL) == ("backend:80: everybody in the mesh",)
    assert said(Level.STRICT, BUT_NOT_EAST) == ("backend:80: everybody in the mesh but not region=east",)


def test_before_mutual_tls_is_strict_anybody_is_admitted() -> None:
    assert said(Level.PLAIN, ONLY_WEB) == ("backend:80: anybody, in plaintext",)
    assert said(Level.ENCRYPTING, ONLY_WEB) == ("backend:80: web and anybody, in plaintext",)


def test_an_inbound_that_is_not_served_admits_nobody() -> None:
    view = MeshView("default").having(BACKEND)
    assert remaining_access.admits(view, MeshConfig(view).admissions.admission_of, "backend-01", {0}) == ()


def test_nobody_knows_of_a_dataplane_that_is_gone() -> None:
    view = MeshView("default")
    assert remaining_access.admits(view, MeshConfig(view).admissions.admission_of, "backend-01") == ()


def test_while_other_permissions_take_over_those_before_still_admit() -> None:
    """Callers whose certificates do not show yet what the new ones look at."""
    before = resource(ONLY_WEB)
    stage = Stage(before=Permissions.of([before], []))
    by_tag = resource(ONLY_WEB.replace("kuma.io/service: web", "region: east"))
    spec = MeshTransitionSpec(position=Position(level=Level.STRICT))
    view = MeshView("default").having(Resource(kinds.MESH_TRANSITION.key("default", "default"), spec)).having(BACKEND)
    config = MeshConfig(view.having(by_tag), stage=stage)
    (line,) = remaining_access.admits(config.view, config.admissions.admission_of, "backend-01")
    assert line == "backend:80: web (with a certificate that does not show region), region=east"
