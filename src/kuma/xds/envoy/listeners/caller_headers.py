"""Headers by which a workload, or Envoy, is told who called: what a caller says in them itself is dropped.

Dropped before anything else is done with a request, so that a router does not obey them either. What gateways say of
their own clients (`x-forwarded-for`, `forwarded`, ...) is kept: who says it, is in `x-forwarded-client-cert`.

Servers hand headers on as variables, and write `_` for what no variable may have in its name: CGI, WSGI and Rack for a
hyphen, lighttpd for everything but letters and digits. Some read trailers as headers. Both is dropped, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2 as trailer_mutation_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from kuma.xds.envoy import tls

_TELLING = (
    "x-forwarded-client-cert",
    "client-cert",  # RFC 9440 §2.4: to be removed by whoever ends TLS
    "client-cert-chain",
    "x-envoy-external-address",
    "x-envoy-internal",
)
"""Names that a workload may know by another spelling."""
_NAMES = (
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-ip-tags",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
    # By these, who is taken for a caller from inside commands a router.
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-dst-host",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
)


def _spellings(name: str) -> Iterator[str]:
    """Yields a name with hyphens and underscores in every mixture."""
    first, *others = name.split("-")
    for parts in itertools.product(*((f"-{other}", f"_{other}") for other in others)):
        yield "".join((first, *parts))


@cache
def dropped(*, by_pattern: bool) -> extension_pb2.TypedExtensionConfig:
    """Returns the part of an HTTP connection manager that drops these headers from requests: in all the same one.

    `by_pattern` drops them with whatever between their words, which takes an Envoy that can; otherwise a hyphen or an
    underscore.
    """
    found = header_mutation_pb2.HeaderMutation(mutations=_mutations(by_pattern))
    return extension_pb2.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=tls.packed(found)
    )


@cache
def dropped_from_trailers() -> hcm_pb2.HttpFilter:
    """Returns the filter that drops them from what comes after the body of a request, for an Envoy that can."""
    mutations = trailer_mutation_pb2.Mutations(request_trailers_mutations=_mutations(by_pattern=True))
    found = trailer_mutation_pb2.HeaderMutation(mutations=mutations)
    return hcm_pb2.HttpFilter(name="envoy.filters.http.header_mutation", typed_config=tls.packed(found))


def _mutations(by_pattern: bool) -> list[mutation_rules_pb2.HeaderMutation]:
    if not by_pattern:
        # Of this one Envoy itself replaces what is said in its usual spelling.
        spelled = [name for told in _TELLING for name in _spellings(told) if name != _TELLING[0]]
        return [mutation_rules_pb2.HeaderMutation(remove=name) for name in (*spelled, *_NAMES)]
    first = mutation_rules_pb2.HeaderMutation()
    pattern = "|".join(told.replace("-", "[^a-z0-9]") for told in _TELLING)
    first.remove_on_match.key_matcher.safe_regex.regex = pattern
    return [first, *(mutation_rules_pb2.HeaderMutation(remove=name) for name in _NAMES)]
