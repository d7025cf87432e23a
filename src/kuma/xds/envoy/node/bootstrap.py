"""The configuration that an Envoy starts with: who it is, and how it reaches the control plane."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2, protocol_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.filters.http.credential_injector.v3 import credential_injector_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.http.injected_credentials.generic.v3 import generic_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import json_format

from kuma.base.values import addresses
from kuma.policy import caller_groups
from kuma.resources import codec
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.listeners import admin_listener
from kuma.xds.envoy.node import capabilities
from kuma.xds.envoy.services import clusters

RESOURCE_MONITORS = "feature-resource-monitors"
"""What a kuma-dp says that hands a bootstrap to Envoy whatever types of messages are in it."""
TOKEN_SECRET = "dataplane_token"  # noqa: S105 - the name of a secret
_DOWNSTREAM_CONNECTIONS = 50_000
"""Connections that a proxy accepts at once; more are closed. Without a limit a flood takes its memory."""
_RECONNECT = (timedelta(milliseconds=500), timedelta(seconds=5))
_CONNECT = timedelta(seconds=5)
"""With the handshake, which takes its time when a whole mesh comes back: to give it up would make another one."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Parameters of a bootstrap. `brought` is the Dataplane that the proxy registers when it connects."""

    mesh: str
    name: str
    services: tuple[str, ...]
    admin_port: int
    host: str
    port: int
    ca_pem: bytes
    token: str = field(repr=False)
    version: Mapping[str, Any]
    brought: Resource[DataplaneSpec] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    """What else kuma-dp says of itself; it becomes part of the node's metadata as it is."""

    def to_json(self) -> str:
        """Returns the bootstrap in protobuf's JSON form, which Envoy reads as YAML too."""
        return json_format.MessageToJson(self._message(), indent=1)

    def _message(self) -> bootstrap_pb2.Bootstrap:
        found = bootstrap_pb2.Bootstrap(node=self._node())
        found.admin.address.CopyFrom(clusters.socket(admin_listener.ADDRESS, self.admin_port))
        dynamic = found.dynamic_resources
        for source in (dynamic.lds_config, dynamic.cds_config):
            source.CopyFrom(tls.ADS)
            source.initial_fetch_timeout.FromTimedelta(timedelta())  # wait for ever: serve nothing before it is known
        dynamic.ads_config.CopyFrom(self._ads())
        found.hds_config.CopyFrom(self._ads())  # the same server and token
        found.hds_config.api_type = config_source_pb2.ApiConfigSource.GRPC
        found.static_resources.clusters.append(self._cluster())
        if self._without_token:
            found.static_resources.secrets.add(name=TOKEN_SECRET).generic_secret.SetInParent()
        self._limit(found)
        if self._takes_any_type:
            extension = found.bootstrap_extensions.add(name="envoy.bootstrap.internal_listener")
            extension.typed_config.CopyFrom(tls.packed(internal_listener_pb2.InternalListener()))
        return found

    @property
    def _takes_any_type(self) -> bool:
        """Tells whether kuma-dp hands the bootstrap on as it is.

        The original's decodes it, and ends at a message of a type that is not linked into it.
        """
        return RESOURCE_MONITORS in self.said.get("features", ())

    def _limit(self, bootstrap: bootstrap_pb2.Bootstrap) -> None:
        """Bound the connections that the proxy accepts; the older form is one of which newer Envoys warn."""
        if not self._takes_any_type:
            limit = {"overload.global_downstream_max_connections": _DOWNSTREAM_CONNECTIONS}
            bootstrap.layered_runtime.layers.add(name="limits").static_layer.update(limit)
            return
        monitor = downstream_connections_pb2.DownstreamConnectionsConfig(
            max_active_downstream_connections=_DOWNSTREAM_CONNECTIONS
        )
        bootstrap.overload_manager.resource_monitors.add(
            name="envoy.resource_monitors.global_downstream_max_connections", typed_config=tls.packed(monitor)
        )

    def _node(self) -> base_pb2.Node:
        node = base_pb2.Node(id=f"{self.mesh}.{self.name}", cluster=self.services[0] if self.services else "unknown")
        metadata: dict[str, Any] = {
            **self.said,
            "dataplane.proxyType": "dataplane",
            "dataplane.admin.port": str(self.admin_port),
            "version": dict(self.version),
        }
        if self._takes_any_type:
            metadata[capabilities.INTERNAL_LISTENERS] = True
        if self.services:
            metadata[tls.GROUP_ALPN] = tls.group_alpn(caller_groups.group(self.services))
        if self.brought is not None:
            metadata["dataplane.resource"] = json.dumps(codec.to_universal(self.brought))
        node.metadata.update(metadata)
        return node

    def _ads(self) -> config_source_pb2.ApiConfigSource:
        service = grpc_service_pb2.GrpcService()
        service.envoy_grpc.cluster_name = resource_names.ADS_CLUSTER
        first, last = _RECONNECT
        backoff = service.envoy_grpc.retry_policy.retry_back_off
        backoff.base_interval.FromTimedelta(first)
        backoff.max_interval.FromTimedelta(last)
        if not self._without_token:
            service.initial_metadata.add(key="authorization", value=self.token)
        return config_source_pb2.ApiConfigSource(
            api_type=config_source_pb2.ApiConfigSource.DELTA_GRPC,
            transport_api_version=config_source_pb2.V3,
            set_node_on_first_message_only=True,
            grpc_services=[service],
        )

    @property
    def _without_token(self) -> bool:
        """Tells whether the token is left to kuma-dp.

        It becomes a secret, which Envoy redacts in its dumps; initial metadata are shown to whoever reaches Envoy's
        administration. The original's kuma-dp decodes the bootstrap and does not know the types.
        """
        return capabilities.OWN_TOKEN in self.said.get("features", ())

    @property
    def _has_address(self) -> bool:
        """Tells whether the control plane is called by its IP address rather than by a name."""
        return addresses.parse(self.host) is not None

    def _cluster(self) -> cluster_pb2.Cluster:
        cluster = cluster_pb2.Cluster(
            name=resource_names.ADS_CLUSTER,
            type=cluster_pb2.Cluster.STATIC if self._has_address else cluster_pb2.Cluster.LOGICAL_DNS,
            dns_lookup_family=cluster_pb2.Cluster.ALL,  # where nobody listens, such as at ::1, the next one is tried
        )
        cluster.connect_timeout.FromTimedelta(_CONNECT)
        cluster.load_assignment.CopyFrom(clusters.assignment(resource_names.ADS_CLUSTER, [(self.host, self.port)]))
        options = http_protocol_options_pb2.HttpProtocolOptions()
        keepalive = protocol_pb2.KeepaliveSettings()
        keepalive.interval.FromTimedelta(timedelta(seconds=15))
        keepalive.timeout.FromTimedelta(timedelta(seconds=10))
        options.explicit_http_config.http2_protocol_options.connection_keepalive.CopyFrom(keepalive)
        if self._without_token:
            options.http_filters.extend(_token_filters())
        cluster.typed_extension_protocol_options[clusters.HTTP_OPTIONS].CopyFrom(tls.packed(options))
        cluster.transport_socket.CopyFrom(self._tls())
        return cluster

    def _tls(self) -> base_pb2.TransportSocket:
        """Authenticates the control plane by the CA that kuma-dp was given, and by the name it was called by."""
        context = tls_pb2.UpstreamTlsContext(sni="" if self._has_address else self.host)
        common = context.common_tls_context
        common.tls_params.tls_minimum_protocol_version = common_pb2.TlsParameters.TLSv1_2
        common.validation_context.trusted_ca.inline_bytes = self.ca_pem
        san = common.validation_context.match_typed_subject_alt_names.add()
        matcher = common_pb2.SubjectAltNameMatcher
        san.san_type = matcher.IP_ADDRESS if self._has_address else matcher.DNS
        san.matcher.exact = self.host
        return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=tls.packed(context))


def _token_filters() -> tuple[hcm_pb2.HttpFilter, ...]:
    """Filters of the requests to the control plane: the token from its secret, and then the codec."""
    generic = generic_pb2.Generic(header="authorization")
    generic.credential.name = TOKEN_SECRET
    injector = credential_injector_pb2.CredentialInjector(overwrite=True)
    injector.credential.name = "envoy.http.injected_credentials.generic"
    injector.credential.typed_config.CopyFrom(tls.packed(generic))
    return (
        hcm_pb2.HttpFilter(name="envoy.filters.http.credential_injector", typed_config=tls.packed(injector)),
        hcm_pb2.HttpFilter(
            name="envoy.filters.http.upstream_codec", typed_config=tls.packed(upstream_codec_pb2.UpstreamCodec())
        ),
    )
