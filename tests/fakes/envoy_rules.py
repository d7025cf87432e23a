"""Evaluates what was generated for Envoy, as Envoy does: rules about the names in a caller's certificate."""

from __future__ import annotations

from typing import Any

from envoy.config.rbac.v3 import rbac_pb2


def matches(predicate: Any, carried: str) -> bool:
    """Tells whether a matcher's predicate holds for the text that a gate is given."""
    kind = predicate.WhichOneof("match_type")
    if kind == "single_predicate":
        wanted = predicate.single_predicate.value_match
        return bool(wanted.contains in carried if wanted.contains else carried.startswith(wanted.prefix))
    if kind == "not_matcher":
        return not matches(predicate.not_matcher, carried)
    parts = [matches(part, carried) for part in getattr(predicate, kind).predicate]
    assert len(parts) >= 2, "Envoy rejects others"
    return all(parts) if kind == "and_matcher" else any(parts)


def is_like(principal: rbac_pb2.Principal, names: list[str]) -> bool:
    """Tells whether a principal of RBAC is a caller whose certificate has these names."""
    kind = principal.WhichOneof("identifier")
    if kind == "authenticated":
        name = principal.authenticated.principal_name
        return any(shown == name.exact if name.exact else shown.startswith(name.prefix) for shown in names)
    if kind == "not_id":
        return not is_like(principal.not_id, names)
    parts = [is_like(part, names) for part in getattr(principal, kind).ids]
    return all(parts) if kind == "and_ids" else any(parts)


def lets_in(rules: rbac_pb2.RBAC, names: list[str]) -> bool:
    """Tells whether RBAC, with one policy or none, passes the caller on."""
    named = any(is_like(principal, names) for policy in rules.policies.values() for principal in policy.principals)
    return bool(named == (rules.action == rbac_pb2.RBAC.ALLOW))
