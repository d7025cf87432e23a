"""The tag kuma.io/zone: selectors see it on everything, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

from kuma.policy import membership
from kuma.policy.authorization import Principal
from kuma.resources import codec
from kuma.resources.models import target_ref
from kuma.resources.models.blocks.mesh_blocks import Membership
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import MTLS, resource
from tests.fakes.views import arrived

ZONE = "kuma.io/zone"
IN_ZONE = "{targetRef: {kind: MeshSubset, tags: {kuma.io/zone: default}}, default: {action: Allow}}"
FROM_ZONE = (
    "{type: MeshTrafficPermission, mesh: default, name: in-zone, spec: "
    f"{{targetRef: {{kind: MeshSubset, tags: {{kuma.io/zone: default}}}}, from: [{IN_ZONE}]}}}}"
)


def dataplane(name: str, tags: str = "", calls: str = "") -> Resource[Any]:
    outbound = f"outbound: [{{port: 9000, tags: {{kuma.io/service: backend, {calls}}}}}], " if calls else ""
    tags = f", {tags}" if tags else ""
    return resource(
        f"{{type: Dataplane, mesh: default, name: {name}, networking: {{address: 10.0.0.1, {outbound}"
        f"inbound: [{{port: 80, servicePort: 8080, tags: {{kuma.io/service: {name}{tags}}}}}]}}}}"
    )


def view(*resources: Resource[Any]) -> MeshView:
    found = MeshView("default").having(resource(MTLS))
    for each in resources:
        found = found.having(each)
    return arrived(found)


@pytest.mark.parametrize(("tags", "zone"), [("", "default"), ("kuma.io/zone: east", "east")])
def test_a_certificate_shows_the_zone_where_permissions_select_by_it(tags: str, zone: str) -> None:
    web = dataplane("web", tags)
    assert MeshConfig(view(web)).uris("web") == ("spiffe://default/web",)
    config = MeshConfig(view(web, resource(FROM_ZONE)))
    assert config.uris("web") == ("spiffe://default/web", f"kuma://kuma.io/zone/{zone}")
    (inbound,) = web.spec.net.inbound
    admitted = config.permissions.admission(target_ref.facets(web, inbound)).principals
    assert admitted == ((Principal(((ZONE, "default"),)),) if zone == "default" else ())


@pytest.mark.parametrize(("calls", "count"), [("kuma.io/zone: default", 1), ("kuma.io/zone: east", 0)])
def test_an_outbound_may_ask_for_the_zone(calls: str, count: int) -> None:
    backend = resource(
        "{type: Dataplane, mesh: default, name: backend-1, labels: {kuma.io/serving: 'true'}, networking: "
        "{address: 10.0.0.2, inbound: [{port: 80, servicePort: 8080, tags: {kuma.io/service: backend}}]}}"
    )
    snapshot = MeshConfig(view(backend, dataplane("web", calls=calls))).snapshot("web", {})
    ((_, endpoints),) = snapshot[TypeUrl.ENDPOINTS].items()
    assert endpoints.wire.count(b"10.0.0.2") == count


def test_a_requirement_of_the_mesh_may_name_the_zone() -> None:
    required = Membership.model_validate({"requirements": [{"tags": {ZONE: "default"}}]})
    assert membership.exclusion("default", required, dataplane("web").spec) == ""
    assert membership.exclusion("default", required, dataplane("web", "kuma.io/zone: east").spec)


def test_what_is_written_is_given_back() -> None:
    assert ZONE not in str(codec.to_universal(dataplane("web")))
