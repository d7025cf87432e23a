"""Makes the access logs by which a proxy reports its callers to the control plane (Envoy's access log service).

A connection is reported when it ends. What goes on for long is reported earlier: a TCP connection when it is opened and
every few minutes, and of requests over HTTP a small part, so that each costs next to nothing; of those that are refused
more. Entries say what Envoy itself has decided, where it has decided before they are written.

Callers that show no certificate of the mesh are those whom STRICT would cut off: none of them may be missed for long.
What they have open over TCP is reported every minute. Over HTTP, what could tell the first request of a connection from
the others would cost each of them more than all the rest together; so their connections are ended in time instead
(`connection_limits.UNIDENTIFIED`), which is reported.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, auto

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as entries_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.type.v3 import percent_pb2

from kuma.xds.envoy import resource_names, tls

LOG = "kuma-observed-traffic"
CHAIN = "chain"
"""The tag of an entry that says by which filter chain a caller was served."""
DECIDED = "decided"
"""The tag that says what RBAC has decided, a line each: the shadow rules over TCP, why a connection was ended, and over
HTTP an object with both."""
TOGETHER_FOR = timedelta(seconds=15)
"""How long entries wait for others, to be sent together."""
_BUFFER = 256 << 10
"""Bytes of entries that are sent at once."""
_SAMPLED_PERCENT, _REFUSED_PERCENT = 1, 10
_HTTP_RBAC, _NETWORK_RBAC = "envoy.filters.http.rbac", "envoy.filters.network.rbac"
_DECISIONS = "\n".join(
    (
        f"%DYNAMIC_METADATA({_NETWORK_RBAC}:shadow_engine_result)%",
        "%CONNECTION_TERMINATION_DETAILS%",
        f"%DYNAMIC_METADATA({_HTTP_RBAC})%",
    )
)


def of_connections() -> accesslog_pb2.AccessLog:
    """Makes the log of a listener: an entry for each connection that has ended, or never became one."""
    return _log()


class Reported(Enum):
    """How much the control plane is told of connections while they last."""

    NOTHING = auto()
    SOME = auto()
    """That they are there, now and then."""
    OFTEN = auto()
    """That each over TCP is there, as soon as it is used and every minute; of others a part, too."""

    @property
    def goes_on(self) -> timedelta:
        """Returns how often what goes on for long is reported."""
        return timedelta(minutes=1) if self is Reported.OFTEN else timedelta(minutes=5)


def of_tcp(proxy: tcp_proxy_pb2.TcpProxy, reported: Reported) -> None:
    """Has a TCP proxy report connections when they are opened, and from time to time."""
    if reported is Reported.NOTHING:
        return
    proxy.access_log_options.flush_access_log_on_connected = True
    proxy.access_log_options.access_log_flush_interval.FromTimedelta(reported.goes_on)
    log = _log()
    log.filter.log_type_filter.types.extend((entries_pb2.TcpUpstreamConnected, entries_pb2.TcpPeriodic))
    proxy.access_log.append(log)


def of_http(manager: hcm_pb2.HttpConnectionManager, reported: Reported) -> None:
    """Has an HTTP connection manager report some of its requests, and from time to time those that go on."""
    if reported is Reported.NOTHING:
        return
    manager.access_log_options.access_log_flush_interval.FromTimedelta(reported.goes_on)
    log = _log()
    either = log.filter.or_filter.filters
    either.add(runtime_filter=_sampled("requests", _SAMPLED_PERCENT))
    either.add().log_type_filter.types.append(entries_pb2.DownstreamPeriodic)
    if reported is Reported.SOME:
        either.append(_refused())
    manager.access_log.append(log)


def _refused() -> accesslog_pb2.AccessLogFilter:
    both = accesslog_pb2.AndFilter()
    refused = both.filters.add().metadata_filter
    refused.match_if_key_not_found.value = False
    refused.matcher.filter = _HTTP_RBAC
    refused.matcher.path.add(key="enforced_engine_result")
    refused.matcher.value.string_match.exact = "denied"
    both.filters.add(runtime_filter=_sampled("refused", _REFUSED_PERCENT))
    return accesslog_pb2.AccessLogFilter(and_filter=both)


def _sampled(what: str, percent: int) -> accesslog_pb2.RuntimeFilter:
    some = accesslog_pb2.RuntimeFilter(runtime_key=f"kuma.observed_traffic.{what}", use_independent_randomness=True)
    some.percent_sampled.numerator = percent
    some.percent_sampled.denominator = percent_pb2.FractionalPercent.HUNDRED
    return some


def _log() -> accesslog_pb2.AccessLog:
    """Makes a log; Envoy sends those that are configured equally over the same stream."""
    config = als_pb2.TcpGrpcAccessLogConfig()
    common = config.common_config
    common.log_name = LOG
    common.grpc_service.envoy_grpc.cluster_name = resource_names.ADS_CLUSTER
    common.transport_api_version = config_source_pb2.V3
    common.buffer_flush_interval.FromTimedelta(TOGETHER_FOR)
    common.buffer_size_bytes.value = _BUFFER
    common.custom_tags.add(tag=CHAIN, value="%FILTER_CHAIN_NAME%")
    common.custom_tags.add(tag=DECIDED, value=_DECISIONS)
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=tls.packed(config))
