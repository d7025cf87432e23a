"""Names of settings in the environment: ours, and the original's that are fixed, or have no effect here."""

from __future__ import annotations

from collections.abc import Iterator

from kuma.app.configuration.section import Section
from kuma.app.configuration.settings import Settings

SHORTER = {
    "KUMA_XDS_SERVER_DATAPLANE_DEREGISTRATION_DELAY": "KUMA_XDS_DATAPLANE_DEREGISTRATION_DELAY",
    "KUMA_DP_SERVER_HDS_CHECK_DEFAULTS_INTERVAL": "KUMA_DP_SERVER_HDS_CHECK_INTERVAL",
    "KUMA_DP_SERVER_HDS_CHECK_DEFAULTS_TIMEOUT": "KUMA_DP_SERVER_HDS_CHECK_TIMEOUT",
    "KUMA_DP_SERVER_HDS_CHECK_DEFAULTS_UNHEALTHY_THRESHOLD": "KUMA_DP_SERVER_HDS_CHECK_UNHEALTHY_THRESHOLD",
    "KUMA_DP_SERVER_HDS_CHECK_DEFAULTS_HEALTHY_THRESHOLD": "KUMA_DP_SERVER_HDS_CHECK_HEALTHY_THRESHOLD",
}
ALIASES = {
    "KUMA_API_SERVER_HTTPS_TLS_CERT_FILE": "KUMA_GENERAL_TLS_CERT_FILE",
    "KUMA_API_SERVER_HTTPS_TLS_KEY_FILE": "KUMA_GENERAL_TLS_KEY_FILE",
    "KUMA_DP_SERVER_TLS_CERT_FILE": "KUMA_GENERAL_TLS_CERT_FILE",
    "KUMA_DP_SERVER_TLS_KEY_FILE": "KUMA_GENERAL_TLS_KEY_FILE",
    "KUMA_DP_SERVER_READ_HEADER_TIMEOUT": "KUMA_DP_SERVER_LIMITS_HEAD_TIMEOUT",
    "KUMA_ACCESS_STATIC_VIEW_CONFIG_DUMP_USERS": "KUMA_ACCESS_STATIC_GET_CONFIG_DUMP_USERS",  # as it is in files
    "KUMA_ACCESS_STATIC_VIEW_CONFIG_DUMP_GROUPS": "KUMA_ACCESS_STATIC_GET_CONFIG_DUMP_GROUPS",
    "KUMA_INJECTOR_INIT_CONTAINER_IMAGE": "KUMA_RUNTIME_KUBERNETES_INJECTOR_INIT_CONTAINER_IMAGE",
}
"""Names of the original for what has another name here, or is one setting: all servers have the same certificate."""
FIXED = {
    "KUMA_MODE": ("zone", "standalone"),
    "KUMA_API_SERVER_BASE_PATH": ("/", ""),
    "KUMA_API_SERVER_READ_ONLY": ("false",),
    "KUMA_API_SERVER_AUTHN_TYPE": ("tokens",),
    "KUMA_ACCESS_TYPE": ("static",),
    "KUMA_DP_SERVER_AUTH_TYPE": ("dpToken", ""),
    "KUMA_GENERAL_TLS_MIN_VERSION": ("TLSv1_2",),
    "KUMA_API_SERVER_HTTPS_TLS_MIN_VERSION": ("TLSv1_2",),
    "KUMA_DP_SERVER_TLS_MIN_VERSION": ("TLSv1_2",),
    "KUMA_DP_SERVER_AUTHN_ENABLE_RELOADABLETOKENS": ("true", "false"),
    "KUMA_DEFAULTS_ENABLE_LOCALHOST_INBOUND_CLUSTERS": ("false",),
    "KUMA_DIAGNOSTICS_DEBUG_ENDPOINTS": ("false",),
}
"""Variables of the original with the values that this control plane always has: they may be given, no others."""
TOKENS = (
    "every proxy shows a token, or anybody would get any identity; make one with `kumactl generate dataplane-token "
    "--name NAME --mesh MESH` and give it to kuma-dp with --dataplane-token-file"
)
REMEDIES = {
    "KUMA_DP_SERVER_AUTH_TYPE": TOKENS,
    "KUMA_DEFAULTS_ENABLE_LOCALHOST_INBOUND_CLUSTERS": (
        "set serviceAddress to 127.0.0.1 at the inbounds whose workloads listen there"
    ),
}
"""What to do instead of what a variable asks for."""
OTHERS = ("KUMA_CONTROL_PLANE_", "KUMA_DATAPLANE_", "KUMA_DP_ENVOY_")
"""Variables of kuma-dp, which may stand in the same environment."""


LISTS = (
    "hostnames",
    "users",
    "groups",
    "localhost_admin_users",
    "localhost_admin_groups",
    "allowed_workloads",
    "dataplane_networks",
)


CIPHERS = "_TLS_CIPHER_SUITES"
"""How the names of settings end that would restrict the ciphers of a server: passing them over would be unsafe."""
CHOICES = {"KUMA_STORE_TYPE": ("sqlite", "memory", "postgres", "kubernetes")}
"""Settings that choose a part, with the parts that there are: judged before what depends on the choice."""
DIAGNOSTICS_TLS = "KUMA_DIAGNOSTICS_TLS_"
PASSED_OVER = {
    "KUMA_API_SERVER_CORS_ALLOWED_DOMAINS": "no web page of another site may call the API",
    "KUMA_API_SERVER_GUI_": "the console is always there, at /gui of the API",
    "KUMA_API_SERVER_ROOT_URL": "pages of the console lead to where they are",
    "KUMA_BOOTSTRAP_SERVER_": "bootstraps follow from the settings of the other servers",
    "KUMA_CORE_RESOURCES_": "there are no MeshServices",
    "KUMA_DEFAULTS_CREATE_MESH_ROUTING_RESOURCES": "no policy is ever created",
    "KUMA_DEFAULTS_SKIP_HOSTNAME_GENERATORS": "services have no host names",
    "KUMA_DEFAULTS_SKIP_TENANT_RESOURCES": "",
    DIAGNOSTICS_TLS: "diagnostics are served without TLS, on the loopback; elsewhere these are refused",
    "KUMA_DNS_SERVER_": "services have no host names",
    "KUMA_DP_SERVER_AUTHN_ZONE_PROXY_": "there is one zone",
    "KUMA_DP_SERVER_HDS_ENABLED": "workloads are asked whose inbounds have a serviceProbe, and no others",
    "KUMA_DP_SERVER_HDS_REFRESH_INTERVAL": "nothing is polled: changes are sent at once",
    "KUMA_DP_SERVER_HDS_CHECK_NO_TRAFFIC_INTERVAL": "a workload is asked as often without traffic as with it",
    "KUMA_DP_SERVER_HDS_CHECK_DEFAULTS_NO_TRAFFIC_INTERVAL": "",
    "KUMA_EVENT_BUS_": "",
    "KUMA_EXPERIMENTAL_": "",
    "KUMA_GENERAL_RESILIENT_COMPONENT_": "",
    "KUMA_GUI_SERVER_": "the console is at /gui of the API",
    "KUMA_INJECTOR_": "",
    "KUMA_INTER_CP_": "there is one control plane",
    "KUMA_IPAM_": "services have no addresses of their own",
    "KUMA_MESH_SERVICE_": "there are no MeshServices",
    "KUMA_METRICS_": "",
    "KUMA_MONITORING_ASSIGNMENT_SERVER_": "Prometheus is not told which proxies there are",
    "KUMA_MULTIZONE_": "there is one zone",
    "KUMA_PLUGIN_POLICIES_": "",
    "KUMA_POLICIES_": "",
    "KUMA_PROXY_": "",
    "KUMA_REPORTS_": "nothing is reported to anybody",
    "KUMA_RUNTIME_": "",
    "KUMA_STORE_CACHE_": "nothing is polled",
    "KUMA_STORE_POSTGRES_HEALTH_CHECK_INTERVAL": "a connection is looked at before it is used",
    "KUMA_STORE_POSTGRES_MAX_CONNECTION_IDLE_TIME": "",
    "KUMA_STORE_POSTGRES_MAX_CONNECTION_LIFETIME_JITTER": "",
    "KUMA_STORE_POSTGRES_MAX_LIST_QUERY_ELEMENTS": "",
    "KUMA_STORE_POSTGRES_MAX_RECONNECT_INTERVAL": "a lost connection is made anew after 2 seconds at most",
    "KUMA_STORE_POSTGRES_MIN_RECONNECT_INTERVAL": "",
    "KUMA_STORE_POSTGRES_READ_REPLICA_": "everything is read where it is written",
    "KUMA_STORE_POSTGRES_TLS_DISABLE_SSLSNI": "",
    "KUMA_STORE_UNSAFE_DELETE": "a Mesh that has Dataplanes cannot be deleted",
    "KUMA_STORE_UPSERT_": "",
    "KUMA_TRACING_": "nothing is traced",
    "KUMA_XDS_SERVER_DATAPLANE_CONFIGURATION_REFRESH_INTERVAL": "nothing is polled: changes are sent at once",
    "KUMA_XDS_SERVER_DATAPLANE_STATUS_FLUSH_INTERVAL": "",
    "KUMA_XDS_SERVER_DATAPLANE_STATUS_TRACKER_": "",
    "KUMA_XDS_SERVER_NACK_BACKOFF": "what a proxy rejects is not sent again until it changes",
}
"""Names of the original, or how they begin, that have no effect here, with what that means if it is not plain."""


def passed_over(variable: str) -> bool:
    """Tells whether a variable is one of the original's that have no effect here."""
    return variable.startswith(tuple(PASSED_OVER)) or variable.endswith("_TLS_MAX_VERSION")


OF_POSTGRES = "KUMA_STORE_POSTGRES_"
"""How the names of settings begin that have no effect beside the embedded store."""


def variables(section: type[Section] = Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every environment variable with the path of the setting that it sets."""
    for name, info in section.model_fields.items():
        here = (*path, name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from variables(info.annotation, here)
        else:
            variable = "KUMA_" + "_".join(here).upper()
            yield SHORTER.get(variable, variable), here
