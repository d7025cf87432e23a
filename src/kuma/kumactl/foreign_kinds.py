"""Kinds of the original that our control plane has none of: their lists are empty, and looking at one finds nothing."""

from __future__ import annotations

from kuma.resources.kinds import Kind
from kuma.resources.resource import Model


def _global(name: str, path: str, singular: str, plural: str) -> Kind:
    return Kind(name, "Global", path, singular, plural, Model)


def _in_mesh(name: str, path: str, singular: str = "", plural: str = "") -> Kind:
    return Kind(name, "Mesh", path, singular or name.lower(), plural or path, Model)


ALL = (
    _global("Zone", "zones", "zone", "zones"),
    _global("ZoneIngress", "zone-ingresses", "zone-ingress", "zone-ingresses"),
    _global("ZoneEgress", "zoneegresses", "zoneegress", "zoneegresses"),
    _in_mesh("TrafficRoute", "traffic-routes", "traffic-route"),
    _in_mesh("TrafficLog", "traffic-logs", "traffic-log"),
    _in_mesh("TrafficTrace", "traffic-traces", "traffic-trace"),
    _in_mesh("Timeout", "timeouts"),
    _in_mesh("Retry", "retries"),
    _in_mesh("RateLimit", "rate-limits", "rate-limit"),
    _in_mesh("CircuitBreaker", "circuit-breakers", "circuit-breaker"),
    _in_mesh("FaultInjection", "fault-injections", "fault-injection"),
    _in_mesh("HealthCheck", "health-checks", "healthcheck", "healthchecks"),
    _in_mesh("ProxyTemplate", "proxytemplates"),
    _in_mesh("VirtualOutbound", "virtual-outbounds", "virtual-outbound"),
    _in_mesh("ExternalService", "external-services", "external-service"),
    _in_mesh("MeshGateway", "meshgateways"),
    _in_mesh("MeshGatewayRoute", "meshgatewayroutes"),
    _in_mesh("MeshTimeout", "meshtimeouts"),
    _in_mesh("MeshRetry", "meshretries"),
    _in_mesh("MeshCircuitBreaker", "meshcircuitbreakers"),
    _in_mesh("MeshHealthCheck", "meshhealthchecks"),
    _in_mesh("MeshHTTPRoute", "meshhttproutes"),
    _in_mesh("MeshTCPRoute", "meshtcproutes"),
    _in_mesh("MeshLoadBalancingStrategy", "meshloadbalancingstrategies"),
    _in_mesh("MeshAccessLog", "meshaccesslogs"),
    _in_mesh("MeshTrace", "meshtraces"),
    _in_mesh("MeshMetric", "meshmetrics"),
    _in_mesh("MeshRateLimit", "meshratelimits"),
    _in_mesh("MeshFaultInjection", "meshfaultinjections"),
    _in_mesh("MeshProxyPatch", "meshproxypatches"),
    _in_mesh("MeshService", "meshservices"),
)
