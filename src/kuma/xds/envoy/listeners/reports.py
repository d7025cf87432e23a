"""Makes the access logs by which a proxy reports its callers to the control plane (Envoy's access log service).

A connection is reported when it ends. What goes on for long is reported earlier: a TCP connection when it is opened and
every few minutes, and of requests over HTTP a small part, so that each costs next to nothing; of those that are refused
more. Entries say what Envoy itself has decided, where it has decided before they are written.

Callers that show no certificate of the mesh are those whom STRICT would cut off. None of them may be missed while it is
connected: of each connection the first request is reported, and one a minute. Which these are is told by a bucket of
Envoy's rate limit that each connection has of its own; nothing is limited by it.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, auto

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as entries_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
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
_KNOWN = "x-kuma-known-caller"
"""The header, within Envoy only, of a request on a connection that was reported within the last minute."""
_METADATA, _NEW = "kuma.observed_traffic", "new"
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
    EACH = auto()
    """That each is there, as soon as it is used, and at least every minute in which it is."""

    @property
    def goes_on(self) -> timedelta:
        """How often what goes on for long is reported."""
        return timedelta(minutes=1) if self is Reported.EACH else timedelta(minutes=5)


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
    if reported is Reported.EACH:
        _tell_who_is_new(manager)
        either.append(_new())
    else:
        either.add(runtime_filter=_sampled("requests", _SAMPLED_PERCENT))
    either.add().log_type_filter.types.append(entries_pb2.DownstreamPeriodic)
    if reported is Reported.SOME:
        either.append(_refused())
    manager.access_log.append(log)


def _new() -> accesslog_pb2.AccessLogFilter:
    found = accesslog_pb2.MetadataFilter()
    found.matcher.filter = _METADATA
    found.matcher.path.add(key=_NEW)
    found.matcher.value.present_match = True
    found.match_if_key_not_found.value = False
    return accesslog_pb2.AccessLogFilter(metadata_filter=found)


def _refused() -> accesslog_pb2.AccessLogFilter:
    both = accesslog_pb2.AndFilter()
    refused = both.filters.add().metadata_filter
    refused.match_if_key_not_found.value = False
    refused.matcher.filter = _HTTP_RBAC
    refused.matcher.path.add(key="enforced_engine_result")
    refused.matcher.value.string_match.exact = "denied"
    both.filters.add(runtime_filter=_sampled("refused", _REFUSED_PERCENT))
    return accesslog_pb2.AccessLogFilter(and_filter=both)


def _tell_who_is_new(manager: hcm_pb2.HttpConnectionManager) -> None:
    """Marks the first request of a connection in each minute, in the metadata that access logs see.

    The bucket can only tell of the others, in a header: one that a caller sends is dropped before, and the workload
    gets none. Metadata costs a request a few microseconds: the few that are to be reported have it, and no others.
    """
    dropped = header_mutation_pb2.HeaderMutation(mutations=[mutation_rules_pb2.HeaderMutation(remove=_KNOWN)])
    manager.early_header_mutation_extensions.add(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=tls.packed(dropped)
    )
    bucket = local_rate_limit_pb2.LocalRateLimit(
        stat_prefix="kuma_observed_traffic", local_rate_limit_per_downstream_connection=True
    )
    bucket.token_bucket.max_tokens = 1
    bucket.token_bucket.fill_interval.FromTimedelta(Reported.EACH.goes_on)
    bucket.filter_enabled.default_value.numerator = 100
    bucket.request_headers_to_add_when_not_enforced.add(
        header=base_pb2.HeaderValue(key=_KNOWN, value="yes"),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    manager.http_filters.add(name="envoy.filters.http.local_ratelimit", typed_config=tls.packed(bucket))
    marked = header_to_metadata_pb2.Config()
    rule = marked.request_rules.add(header=_KNOWN, remove=True)
    missing = rule.on_header_missing
    missing.metadata_namespace, missing.key, missing.value = _METADATA, _NEW, "yes"
    manager.http_filters.add(name="envoy.filters.http.header_to_metadata", typed_config=tls.packed(marked))


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
