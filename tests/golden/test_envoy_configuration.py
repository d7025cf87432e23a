"""From resources to the whole configuration of one Envoy. After an intended change: `pytest --bless`; read the diff.

A case is a file `cases/NAME.yaml` with the resources of a mesh; the proxy is that of its first Dataplane.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from kuma.resources import codec
from kuma.resources.models import dataplane
from kuma.resources.view import MeshView
from kuma.xds.envoy.node.capabilities import Capabilities
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.views import arrived

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
NEWEST = Capabilities(waits_for_handshake=True, has_internal_listeners=True)
TYPES: dict[TypeUrl, Any] = {
    TypeUrl.CLUSTER: cluster_pb2.Cluster,
    TypeUrl.ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    TypeUrl.SECRET: secret_pb2.Secret,
    TypeUrl.LISTENER: listener_pb2.Listener,
    TypeUrl.ROUTES: route_pb2.RouteConfiguration,
}


def readable(type_url: TypeUrl, entry: Entry) -> Any:
    message = TYPES[type_url].FromString(discovery_pb2.Resource.FromString(entry.wire).resource.value)
    return json.loads(json_format.MessageToJson(message))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_configuration(case: Path, request: pytest.FixtureRequest) -> None:
    view, first = MeshView("default"), ""
    for document in codec.documents(case.read_text()):
        resource = codec.parse(document)
        view = view.having(resource)
        first = first or (resource.name if resource.key.kind == "Dataplane" else "")
    view = arrived(view)
    said = dataplane.admin_port(view.dataplanes[first].spec.net)
    snapshot = MeshConfig(view).snapshot(first, {}, said, NEWEST)
    found = {
        type_url.bucket: [readable(type_url, entry) for _, entry in sorted(entries.items())]
        for type_url, entries in snapshot.items()
        if entries
    }
    found["uris"] = list(MeshConfig(view).uris(first))
    golden = case.with_suffix(".golden")
    if request.config.getoption("--bless"):
        golden.write_text(yaml.safe_dump(found, sort_keys=True))
    assert found == yaml.safe_load(golden.read_text())
