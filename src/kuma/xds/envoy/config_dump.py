"""Dumps what a proxy should be running now as Envoy itself would, without any key. Pure."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format, message

from kuma.xds.delta.session import Snapshot
from kuma.xds.envoy.resource import Entry, TypeUrl

_ADMIN = "type.googleapis.com/envoy.admin.v3"
_FORMS: dict[TypeUrl, tuple[type[message.Message], str]] = {
    TypeUrl.CLUSTER: (cluster_pb2.Cluster, "cluster"),
    TypeUrl.ENDPOINTS: (endpoint_pb2.ClusterLoadAssignment, "endpoint_config"),
    TypeUrl.LISTENER: (listener_pb2.Listener, "listener"),
    TypeUrl.ROUTES: (route_pb2.RouteConfiguration, "route_config"),
}


def config_dump(snapshot: Snapshot) -> dict[str, Any]:
    """Shows the snapshot in the shape of Envoy's `/config_dump`. Of secrets there is only the name and the version."""
    parts = [
        ("ClustersConfigDump", "dynamic_active_clusters", TypeUrl.CLUSTER),
        ("EndpointsConfigDump", "dynamic_endpoint_configs", TypeUrl.ENDPOINTS),
        ("RoutesConfigDump", "dynamic_route_configs", TypeUrl.ROUTES),
    ]
    configs = [_part(kind, field, type_url, snapshot) for kind, field, type_url in parts]
    listeners = [
        {"name": entry.name, "active_state": _item(TypeUrl.LISTENER, entry)}
        for entry in _of(snapshot, TypeUrl.LISTENER)
    ]
    secrets = [{"name": entry.name, "version_info": entry.version} for entry in _of(snapshot, TypeUrl.SECRET)]
    configs.insert(1, {"@type": f"{_ADMIN}.ListenersConfigDump", "dynamic_listeners": listeners})
    configs.append({"@type": f"{_ADMIN}.SecretsConfigDump", "dynamic_active_secrets": secrets})
    return {"configs": configs}


def _part(kind: str, field: str, type_url: TypeUrl, snapshot: Snapshot) -> dict[str, Any]:
    return {"@type": f"{_ADMIN}.{kind}", field: [_item(type_url, entry) for entry in _of(snapshot, type_url)]}


def _of(snapshot: Snapshot, type_url: TypeUrl) -> list[Entry]:
    return [entry for _, entry in sorted(snapshot.get(type_url, {}).items())]


def _item(type_url: TypeUrl, entry: Entry) -> dict[str, Any]:
    form, field = _FORMS[type_url]
    resource = discovery_pb2.Resource.FromString(entry.wire)
    content = form.FromString(resource.resource.value)
    body = json_format.MessageToDict(content, preserving_proto_field_name=True)
    return {"version_info": entry.version, field: {"@type": type_url.value, **body}}


REDACTED = "[redacted]"


def redacted(content: Any) -> Any:
    """Returns Envoy's dump without the token and keys that Envoy itself does not hide."""
    if isinstance(content, list):
        return [redacted(item) for item in content]
    if not isinstance(content, dict):
        return content
    if str(content.get("key", "")).lower() == "authorization" and "value" in content:
        return {**content, "value": REDACTED}
    return {k: REDACTED if k == "private_key" else redacted(v) for k, v in content.items()}
