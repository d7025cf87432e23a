"""Headers by which a workload, or Envoy, is told who called: what a caller says in them itself is dropped.

Dropped before anything else is done with a request, so that a router does not obey them either. What gateways say of
their own clients (`x-forwarded-for`, `forwarded`, ...) is kept: who says it, is in `x-forwarded-client-cert`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from kuma.xds.envoy import tls

_XFCC = "x-forwarded-client-cert"


def _spellings(name: str) -> Iterator[str]:
    """Yields a name with hyphens and underscores in every mixture: CGI, WSGI and Rack read all of them as one."""
    first, *others = name.split("-")
    for parts in itertools.product(*((f"-{other}", f"_{other}") for other in others)):
        yield "".join((first, *parts))


_NAMES = (
    *(name for name in _spellings(_XFCC) if name != _XFCC),  # Envoy itself sees to the name as it is
    *_spellings("client-cert"),  # RFC 9440 §2.4: to be removed by whoever ends TLS
    *_spellings("client-cert-chain"),
    *_spellings("x-envoy-external-address"),
    *_spellings("x-envoy-internal"),
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


@cache
def dropped() -> extension_pb2.TypedExtensionConfig:
    """Returns the part of an HTTP connection manager that drops these headers from requests: in all the same one."""
    mutations = [mutation_rules_pb2.HeaderMutation(remove=name) for name in _NAMES]
    return extension_pb2.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=tls.packed(header_mutation_pb2.HeaderMutation(mutations=mutations)),
    )
