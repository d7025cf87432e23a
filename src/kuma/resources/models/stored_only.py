"""Kinds of the original that are stored and given back as they were written, and have no effect here.

Mutual TLS and permissions do not depend on them; whoever applies one is told what is not done. Kinds that mutual TLS
does depend on (`MeshTLS`, `MeshIdentity`, ...) are not among them: to pass over those would be unsafe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from kuma.base.errors import Violation
from kuma.resources.naming import Naming


class StoredOnly(NamedTuple):
    """One such kind: its names, whether its content stands under `spec`, and what its absence means for the user."""

    name: str
    path: str
    singular: str
    plural: str
    nested: bool
    meaning: str

    @property
    def naming(self) -> Naming:
        """Its names."""
        return Naming(self.name, "Mesh", self.path, self.singular, self.plural)

    def not_done(self, _: Any) -> Iterator[Violation]:
        """Says what is not done of it."""
        yield Violation("", f"{self.name} is stored and given back, and has no effect here: {self.meaning}")


def _old(name: str, path: str, meaning: str, singular: str = "", plural: str = "") -> StoredOnly:
    return StoredOnly(name, path, singular or path.removesuffix("s"), plural or path, False, meaning)


def _new(name: str, path: str, meaning: str) -> StoredOnly:
    return StoredOnly(name, path, name.lower(), path, True, meaning)


_ENVOY_DEFAULTS = "Envoy's own limits and timeouts hold"
_NO_RETRIES = "a request is sent again only if it has reached nobody"
_NO_HEALTH_CHECKS = "callers do not ask whether endpoints answer; a serviceProbe of an inbound has its proxy ask"
_NO_ROUTES = "requests go to all endpoints of the service that is called"
_NO_TRACES = "proxies send no traces"
_NO_LIMITS = "requests are not limited"
_NO_FAULTS = "no faults are injected"
_NO_PATCHES = "Envoy's configuration is not changed by it"
_NO_GATEWAYS = "nothing listens for it"
_NO_NAMES = "no name or port leads there"

ALL = (
    _old("TrafficRoute", "traffic-routes", _NO_ROUTES),
    _old("TrafficTrace", "traffic-traces", _NO_TRACES),
    _old("Timeout", "timeouts", _ENVOY_DEFAULTS),
    _old("Retry", "retries", _NO_RETRIES, singular="retry"),
    _old("RateLimit", "rate-limits", _NO_LIMITS),
    _old("CircuitBreaker", "circuit-breakers", _ENVOY_DEFAULTS),
    _old("FaultInjection", "fault-injections", _NO_FAULTS),
    _old("HealthCheck", "health-checks", _NO_HEALTH_CHECKS, singular="healthcheck", plural="healthchecks"),
    _old("ProxyTemplate", "proxytemplates", _NO_PATCHES),
    _old("VirtualOutbound", "virtual-outbounds", _NO_NAMES),
    _old("ExternalService", "external-services", _NO_NAMES),
    _old("MeshGateway", "meshgateways", _NO_GATEWAYS),
    _old("MeshGatewayRoute", "meshgatewayroutes", _NO_GATEWAYS),
    _new("MeshTimeout", "meshtimeouts", _ENVOY_DEFAULTS),
    _new("MeshRetry", "meshretries", _NO_RETRIES),
    _new("MeshCircuitBreaker", "meshcircuitbreakers", _ENVOY_DEFAULTS),
    _new("MeshHealthCheck", "meshhealthchecks", _NO_HEALTH_CHECKS),
    _new("MeshHTTPRoute", "meshhttproutes", _NO_ROUTES),
    _new("MeshTCPRoute", "meshtcproutes", _NO_ROUTES),
    _new("MeshLoadBalancingStrategy", "meshloadbalancingstrategies", _NO_ROUTES),
    _new("MeshTrace", "meshtraces", _NO_TRACES),
    _new("MeshMetric", "meshmetrics", "proxies serve no metrics for it"),
    _new("MeshRateLimit", "meshratelimits", _NO_LIMITS),
    _new("MeshFaultInjection", "meshfaultinjections", _NO_FAULTS),
    _new("MeshProxyPatch", "meshproxypatches", _NO_PATCHES),
    _new("MeshService", "meshservices", _NO_NAMES),
    _new("MeshExternalService", "meshexternalservices", _NO_NAMES),
    _new("MeshMultiZoneService", "meshmultizoneservices", _NO_NAMES),
)

_OPA = "nothing asks Open Policy Agent here, so what it refuses would be admitted; say by permissions who may call"
_ROLES = "who may write what is decided by user tokens and their groups; roles would restrict nobody"
REFUSED = {
    "MeshTLS": "the mode of mutual TLS stands in the Mesh: mtls.backends[].mode",
    "MeshIdentity": "identities are issued by the backends of the Mesh: mtls.backends",
    "MeshTrust": "the roots that are trusted are those of the backends of the Mesh: mtls.backends",
    "MeshOPA": _OPA,
    "OPAPolicy": _OPA,
    "AccessRole": _ROLES,
    "AccessRoleBinding": _ROLES,
    "MeshPassthrough": "what workloads may call outside the mesh stands in the Mesh: networking.outbound.passthrough",
}
"""Kinds of the original that it would be unsafe to pass over, and what to use instead."""
_OBSERVED = "it says what a control plane has seen, which others see for themselves"
_ON_KUBERNETES = "it is about Pods, which a control plane on Kubernetes makes or changes"
LEFT_OUT = {
    "HostnameGenerator": "services are called at the ports of outbounds, and have no host names of their own",
    "Zone": "there is one zone, and no control plane of another",
    "ZoneIngress": "there is one zone",
    "ZoneEgress": "there is one zone",
    "Workload": _OBSERVED,
    "MeshGlobalRateLimit": _NO_LIMITS,
    "MeshOpenTelemetryBackend": "nothing is sent there",
    "MeshGatewayInstance": _ON_KUBERNETES,
    "MeshGatewayConfig": _ON_KUBERNETES,
    "ContainerPatch": _ON_KUBERNETES,
    "ZoneInsight": _OBSERVED,
    "ZoneIngressInsight": _OBSERVED,
    "ZoneEgressInsight": _OBSERVED,
    "MeshInsight": _OBSERVED,
    "ServiceInsight": _OBSERVED,
}
"""Kinds of the original that mean nothing here: left out of a file with other resources."""


def field_not_done(paths: Iterable[tuple[str, Any, str]]) -> Iterator[Violation]:
    """Says of each field that is set what is not done of it; triples of path, value and meaning."""
    for path, value, meaning in paths:
        if value is not None:
            yield Violation(path, f"is stored and given back, and has no effect here: {meaning}")
