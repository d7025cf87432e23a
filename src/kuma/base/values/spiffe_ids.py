"""SPIFFE IDs as text: whether one is well-formed, and which lie below another."""

from __future__ import annotations

import re

_SCHEME = "spiffe://"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def problem(text: str) -> str:
    """Returns why a text is no SPIFFE ID (SPIFFE-ID §2), in the words that Go's library has for it; empty if it is."""
    if not text:
        return "cannot be empty"
    if not text.startswith(_SCHEME):
        return "scheme is missing or invalid"
    trust_domain, slash, path = text.removeprefix(_SCHEME).partition("/")
    if not trust_domain:
        return "trust domain is missing"
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        return "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores"
    return _path_problem(path.split("/")) if slash else ""


def _path_problem(segments: list[str]) -> str:
    if not segments[-1]:
        return "path cannot have a trailing slash"
    if not all(segments):
        return "path cannot contain empty segments"
    if any(segment in (".", "..") for segment in segments):
        return "path cannot contain dot segments"
    if not all(map(_SEGMENT.fullmatch, segments)):
        return "path segment characters are limited to letters, numbers, dots, dashes, and underscores"
    return ""


def parts(text: str) -> tuple[str, tuple[str, ...]]:
    """Returns the trust domain and the segments of the path of a well-formed SPIFFE ID."""
    trust_domain, *segments = text.removeprefix(_SCHEME).split("/")
    return trust_domain, tuple(segments)
