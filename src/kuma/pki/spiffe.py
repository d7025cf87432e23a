"""SPIFFE IDs of a mesh, and the URIs by which leaves carry tags. The trust domain is the mesh's name."""

from __future__ import annotations

from collections.abc import Iterable

from kuma.resources import tags as tag_rules

_TAG = "kuma://"


def trust_domain_id(mesh: str) -> str:
    """Returns the identity of the mesh itself, which its root carries (SPIFFE-ID §2, X.509-SVID §3.1)."""
    return f"spiffe://{mesh}"


def prefix(mesh: str) -> str:
    """Returns the common prefix of the SPIFFE IDs of a mesh's services."""
    return f"spiffe://{mesh}/"


def service_id(mesh: str, service: str) -> str:
    """Returns the identity of a service, as text: whether it is valid was settled when the Dataplane was applied."""
    return f"{prefix(mesh)}{service}"


def tag_uri(name: str, value: str) -> str:
    """Returns the URI by which a leaf carries a tag that permissions select callers by."""
    return f"{_TAG}{name}/{value}"


def tags(mesh: str, uris: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Returns the tags, names and values, that the URIs of a leaf of this mesh show; other URIs are none of it.

    Names may have slashes in them, values have none.
    """
    own, found = prefix(mesh), set[tuple[str, str]]()
    for uri in uris:
        name, slash, value = uri.removeprefix(_TAG).rpartition("/")
        if uri.startswith(own):
            found.add((tag_rules.SERVICE, uri.removeprefix(own)))
        elif uri.startswith(_TAG) and slash:
            found.add((name, value))
    return frozenset(found)
