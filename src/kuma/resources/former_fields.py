"""Fields of other versions of the original that are none here, each with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OLD_DATAPLANE = "is how Dataplanes were written before version 0.6; write {}"
_OLD_MTLS = "is how Meshes were written before version 0.4; write enabledBackend and backends"
_ZONE_PROXIES = "there are no zone proxies here: there is one zone"
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "Dataplane": {
        "networking.inbound[].interface": _OLD_DATAPLANE.format("address, port and servicePort"),
        "networking.outbound[].interface": _OLD_DATAPLANE.format("port"),
        "networking.outbound[].service": _OLD_DATAPLANE.format("tags with kuma.io/service"),
        "networking.metrics": "stands beside networking, not in it",
        "networking.probes": "stands beside networking, not in it",
        "networking.ingress": _ZONE_PROXIES,
        "networking.egress": _ZONE_PROXIES,
        "networking.listeners": _ZONE_PROXIES,
    },
    "Mesh": {
        "mtls.enabled": _OLD_MTLS,
        "mtls.ca": _OLD_MTLS,
        "metrics.prometheus": "is how Meshes were written before version 0.5; write enabledBackend and backends",
    },
    "MeshTrafficPermission": {
        "rules[].matches": "callers are named under default: allow, deny and allowWithShadowDeny",
        "rules[].default.action": "callers are named under default: allow, deny and allowWithShadowDeny",
        **{
            f"rules[].default.{name}[].sni": "names of servers are for zone proxies, and there are none here"
            for name in ("allow", "deny", "allowWithShadowDeny")
        },
    },
}


def hint(kind: str, path: str) -> str | None:
    """Returns what to do about an unknown field; None if it is of no version that we know of."""
    return _FIELDS.get(kind, {}).get(re.sub(r"\[\d+\]", "[]", path))
