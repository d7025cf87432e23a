"""Limits of the size of resources: one table for all kinds, checked before anything else is made of what was sent.

What one request costs is bounded by what it may hold: the time to judge it, to match it with every Dataplane, and to
configure Envoys with it. The values are far above what people write; `docs/limits.md` has them with their reasons.
They are asked of what is sent. What is stored already is served as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kuma.base.errors import InvalidResource, Violation

TEXT = 1024
"""Characters of a text, and of a name in a map, for which the table has no other number."""
ENTRIES = 64
"""Entries of a list or map for which the table has no other number."""
TAGS = 16
"""Tags of an outbound or a selector. Most have one; each is compared with every inbound of the mesh."""
CALLERS = 1000
"""Callers, or destinations, of one permission. More are better told by a tag that they have in common."""
RULES = 16
"""Rules of one MeshTrafficPermission. They add up, so one is as good as several."""
BROAD, OF_ONE_SERVICE = 2000, 2000
"""Callers in all MeshTrafficPermissions of a mesh that name no service, and in those of one service.

An Envoy compares a caller with the ones in both: beyond a few thousand a request waits for that.
"""
PERMISSION_SELECTORS = 10_000
"""Destinations in all TrafficPermissions of a mesh that name no service: each is compared with every inbound."""
FORMAT = 4096
"""Characters of the format of an access log, which stands in every listener. The default ones have 400."""
LARGEST_SECRET = 512 * 1024
"""Bytes of a Secret: ten thousand revoked tokens, or a hundred chains of certificates. Kubernetes has 1 MiB."""
LARGEST_CHAIN_TEXT = 64 * 1024
"""Characters of a certificate or key that is written in a Mesh: as much as the longest chain of the largest keys."""

_SOURCES: Mapping[str, int] = {
    f"mtls.backends[].{conf}.{part}.{name}": LARGEST_CHAIN_TEXT
    for conf in ("conf", "config")
    for part in ("cert", "key")
    for name in ("inline", "inlineString")
}
MOST: Mapping[str, Mapping[str, int]] = {
    "Mesh": {
        "mtls.backends": 16,  # two during a change of the CA; each is tried out when the Mesh is applied
        **_SOURCES,
        "logging.backends[].format": FORMAT,
    },
    "Dataplane": {
        "networking.inbound": 100,  # ports of one workload; most have one, and few more than five
        "networking.inbound[].tags": 50,  # a Pod's labels: 10 to 20
        "networking.inbound[].tags.*": 255,  # the longest server name of a TLS handshake, which tags are part of
        "networking.outbound": 1000,  # services that one workload calls
        "networking.outbound[].tags": TAGS,
        "networking.outbound[].tags.*": 255,
    },
    "MeshAccessLog": {f"{part}[].default.backends[].file.format.plain": FORMAT for part in ("to", "from", "rules")},
    "TrafficLog": {"sources": ENTRIES, "destinations": ENTRIES, "sources[].match": TAGS, "destinations[].match": TAGS},
    "TrafficPermission": {
        "sources": CALLERS,
        "destinations": CALLERS,
        "sources[].match": TAGS,
        "sources[].match.*": 255,
        "destinations[].match": TAGS,
        "destinations[].match.*": 255,
    },
    "MeshTrafficPermission": {
        "from": CALLERS,
        "targetRef.tags": TAGS,
        "targetRef.tags.*": 255,
        "from[].targetRef.name": 255,
        "from[].targetRef.tags": TAGS,
        "from[].targetRef.tags.*": 255,
        "rules": RULES,
        "rules[].default.allow": CALLERS,
        "rules[].default.deny": CALLERS,
        "rules[].default.allowWithShadowDeny": CALLERS,
        "targetRef.labels": TAGS,
        "targetRef.labels.*": 317,  # a prefix of 253 characters, a slash and a name of 63
    },
    "Secret": {"data": LARGEST_SECRET * 4 // 3 + 4},  # in base64
    "GlobalSecret": {"data": LARGEST_SECRET * 4 // 3 + 4},
}
"""By kind and path: `[]` stands for any item of a list. `.*` stands for the names and values of a map."""


def check(kind: str, content: Mapping[str, Any]) -> None:
    """Tells whether a resource of `kind` that says `content` is small enough to be looked at.

    Raises:
        InvalidResource: it is not; names the field, the limit and the remedy.
    """
    found = next(_excess(MOST.get(kind, {}), content, "", ""), None)
    if found is not None:  # the first: whoever sends much is not answered with more
        raise InvalidResource([found])


def _excess(most: Mapping[str, int], value: Any, path: str, pattern: str) -> Iterator[Violation]:
    if isinstance(value, str):
        limit = most.get(pattern, TEXT)
        if len(value) > limit:
            yield Violation(path, f"has {len(value):,} characters; {limit:,} are the most. Shorten it")
    elif isinstance(value, Mapping):
        yield from _too_many(most, value, path, pattern)
        longest = most.get(f"{pattern}.*", TEXT)
        for name, item in value.items():
            text = str(name)
            if len(text) > longest:
                yield Violation(path, f"has a name of {len(text):,} characters; {longest:,} are the most. Shorten it")
            below = f"{pattern}.{text}" if pattern else text
            known = f"{pattern}.*" if f"{pattern}.*" in most else below
            yield from _excess(most, item, f"{path}.{text}" if path else text, known)
    elif isinstance(value, list | tuple):
        yield from _too_many(most, value, path, pattern)
        for index, item in enumerate(value):
            yield from _excess(most, item, f"{path}[{index}]", f"{pattern}[]")


def _too_many(most: Mapping[str, int], value: Any, path: str, pattern: str) -> Iterator[Violation]:
    limit = most.get(pattern, ENTRIES)
    if len(value) > limit:
        remedy = _REMEDIES.get(pattern, "leave some out")
        yield Violation(path, f"has {len(value):,} entries; {limit:,} are the most. To have fewer, {remedy}")


_REMEDIES = {
    "networking.inbound": "describe some of the ports by a Dataplane of their own",
    "networking.outbound": "leave out the services that the workload does not call",
    "sources": "let callers have a tag in common and select by that, or split the permission",
    "from": "let callers have a tag in common and select by that",
    "rules": "join some of them: what they say adds up",
    "destinations": "let services have a tag in common and select by that, or split the permission",
    "mtls.backends": "take away the authorities that nothing is issued by any more",
}
