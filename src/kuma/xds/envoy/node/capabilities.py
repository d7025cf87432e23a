"""Capabilities of an Envoy, told from its own version and from how it was started: none is sent what it rejects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from envoy.config.core.v3 import base_pb2

from kuma.xds.envoy import tls

OWN_TOKEN = "feature-own-token"  # noqa: S105 - the name of a feature
"""What a kuma-dp says that puts its token into the bootstrap by itself, into the secret of this name: Envoy then shows
it with every request to the control plane, reports too."""
INTERNAL_LISTENERS = "kuma.io/internal-listeners"
"""The key of the node's metadata by which a bootstrap says that it has switched internal listeners on."""
_WAITS_SINCE = (1, 37)
"""`upstream_connect_mode` of the TCP proxy, `on_downstream_tls_handshake` of the filter state, formatted tags of access
logs, and patterns for headers and trailers to be dropped are there from then on."""


class Capabilities(NamedTuple):
    """Capabilities that matter to what is generated. None is expected of an Envoy that does not say which it is."""

    waits_for_handshake: bool = False
    """It can connect to the workload after the caller's certificate has been verified, rather than at once."""
    has_internal_listeners: bool = False
    group: str = ""
    """The ALPN that it offers for its group of callers, by what it was started with; empty if it does not say."""
    reports: bool = False
    """It can report its callers: it shows its token when it does, and names the chain that a connection came by."""
    unwritable: frozenset[str] = frozenset()
    """The files that it could not open for access logs: it would reject every listener that writes there."""

    @property
    def drops_by_pattern(self) -> bool:
        """Tells whether it can drop headers whose names match a pattern, and trailers: it is recent enough."""
        return self.waits_for_handshake

    @property
    def has_gates(self) -> bool:
        """Tells whether any rule can decide before it connects to the workload."""
        return self.waits_for_handshake and self.has_internal_listeners

    @property
    def shortcoming(self) -> str:
        """Says what is decided later than the workload is reached, and what helps; empty if nothing is."""
        if self.has_gates:
            return ""
        late = "it tells callers that are denied, or admitted by tags besides their service, by their first byte"
        if self.waits_for_handshake:
            return f"{late}. Restart it by the kuma-dp of this control plane's version"
        return f"its Envoy connects to the workload as soon as somebody calls, and {late}. Use Envoy 1.37 or later"


OLDEST = Capabilities()


@lru_cache(maxsize=1000)
def of_inbounds(envoy: Capabilities) -> Capabilities:
    """Returns what inbounds are made by, whatever the group: one object for all Envoys that are alike."""
    return envoy._replace(group="", unwritable=OLDEST.unwritable)


def of(node: base_pb2.Node, metadata: Mapping[str, Any]) -> Capabilities:
    """Read what the node of a stream's first request says."""
    version = node.user_agent_build_version.version
    group, features = metadata.get(tls.GROUP_ALPN), metadata.get("features")
    is_recent = (version.major_number, version.minor_number) >= _WAITS_SINCE
    return Capabilities(
        is_recent,
        metadata.get(INTERNAL_LISTENERS) is True,
        group if isinstance(group, str) else "",
        is_recent and isinstance(features, list) and OWN_TOKEN in features,
    )
