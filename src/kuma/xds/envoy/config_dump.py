"""Shows what a proxy should be running now, without any key, and hides what Envoy shows of its own. Pure."""

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

_FORMS: dict[TypeUrl, type[message.Message]] = {
    TypeUrl.CLUSTER: cluster_pb2.Cluster,
    TypeUrl.ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    TypeUrl.LISTENER: listener_pb2.Listener,
    TypeUrl.ROUTES: route_pb2.RouteConfiguration,
}


def wanted(snapshot: Snapshot) -> dict[str, Any]:
    """Returns what is sent to a proxy, by type and name, as the original does. Of secrets there is only the name."""
    shown = {
        type_url.value: {name: _content(form, entry) for name, entry in sorted(snapshot.get(type_url, {}).items())}
        for type_url, form in _FORMS.items()
    }
    secrets = {name: {"name": name} for name in sorted(snapshot.get(TypeUrl.SECRET, {}))}
    return {**shown, TypeUrl.SECRET.value: secrets}


def _content(form: type[message.Message], entry: Entry) -> dict[str, Any]:
    resource = discovery_pb2.Resource.FromString(entry.wire)
    return json_format.MessageToDict(form.FromString(resource.resource.value))


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
