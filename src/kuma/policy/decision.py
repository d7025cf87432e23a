"""Decides what becomes of one caller by an inbound's admission, and by the tags that its certificate shows. Pure.

Envoy decides the same by the rules that are generated from the same admission.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from kuma.policy.authorization import Admission, Principal
from kuma.resources import tags as tag_rules

Verdict = Literal["allowed", "refused", "wouldBeRefused"]
"""`wouldBeRefused`: allowed, and by a rule in shadow mode counted as what a refusal would hit."""
ALLOWED: Verdict = "allowed"
REFUSED: Verdict = "refused"
WOULD_BE_REFUSED: Verdict = "wouldBeRefused"
Shown = frozenset[tuple[str, str]]
"""The tags that a certificate shows; see `spiffe.tags`."""


def carried(tag_values: Mapping[str, Iterable[str]], looked_at: Iterable[str]) -> Shown:
    """Returns what the leaf of a Dataplane with these tags shows, where permissions look at `looked_at`."""
    names = {tag_rules.SERVICE, *looked_at}
    return frozenset((name, value) for name, values in tag_values.items() if name in names for value in values)


def verdict(admission: Admission, caller: Shown) -> Verdict:
    """Returns what becomes of a caller with mesh TLS that shows these tags."""
    names = _names(caller)
    if not _any_is(admission.principals, caller, names) or _any_is(admission.denied, caller, names):
        return REFUSED
    return WOULD_BE_REFUSED if _any_is(admission.shadowed, caller, names) else ALLOWED


def means(principal: Principal, caller: Shown) -> bool:
    """Tells whether a caller is meant by a principal: without tags, everybody with an identity of the mesh is."""
    return _means(principal, caller, _names(caller))


def _means(principal: Principal, caller: Shown, names: frozenset[str]) -> bool:
    if not principal.tags and tag_rules.SERVICE not in names:
        return False
    if not all(tag in caller for tag in principal.tags):
        return False
    return not principal.lacks or not all(name in names for name in principal.lacks)


def _names(caller: Shown) -> frozenset[str]:
    return frozenset(name for name, _ in caller)


def _any_is(principals: Iterable[Principal], caller: Shown, names: frozenset[str]) -> bool:
    return any(_means(principal, caller, names) for principal in principals)
