"""Access rules: which callers an inbound lets in, as Envoy's RBAC (`config.rbac.v3`) says it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from envoy.config.rbac.v3 import rbac_pb2
from envoy.type.matcher.v3 import string_pb2

from kuma.pki import spiffe
from kuma.policy.authorization import Admission, Principal
from kuma.resources import tags as tag_rules


def access(mesh: str, admission: Admission) -> rbac_pb2.RBAC:
    """Returns the callers that may pass. Without principals nobody passes: ALLOW with no policy denies."""
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW)
    if admission.principals:
        policy = rules.policies[admission.permission]
        policy.permissions.add(any=True)
        allowed = list(_principals(mesh, admission.principals))
        if admission.denied:
            refused = rbac_pb2.Principal(not_id=_any_of(list(_principals(mesh, admission.denied))))
            allowed = [rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=[_any_of(allowed), refused]))]
        policy.principals.extend(allowed)
    return rules


def shadow_access(mesh: str, admission: Admission) -> rbac_pb2.RBAC | None:
    """Generates the rules that Envoy counts as `shadow_denied` and lets through: denials in shadow mode."""
    if not admission.shadowed:
        return None
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY)
    policy = rules.policies[admission.permission]
    policy.permissions.add(any=True)
    policy.principals.extend(_principals(mesh, admission.shadowed))
    return rules


def names(mesh: str, admission: Admission) -> tuple[string_pb2.StringMatcher, ...]:
    """Returns what certificates are asked for: every caller that may pass has one of these names.

    A tag that is not the service's name is none of them: it says nothing of the mesh.
    """
    services = [dict(principal.tags).get(tag_rules.SERVICE) for principal in admission.principals]
    if not services or None in services:
        return (string_pb2.StringMatcher(prefix=spiffe.prefix(mesh)),)
    identities = sorted({spiffe.service_id(mesh, str(service)) for service in services})
    return tuple(string_pb2.StringMatcher(exact=identity) for identity in identities)


def uri(mesh: str, name: str, value: str) -> str:
    """Returns the URI by which a certificate shows a tag."""
    return spiffe.service_id(mesh, value) if name == tag_rules.SERVICE else spiffe.tag_uri(name, value)


def _any_of(principals: Sequence[rbac_pb2.Principal]) -> rbac_pb2.Principal:
    if len(principals) == 1:
        return principals[0]
    return rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=principals))


def _all_of(principals: Sequence[rbac_pb2.Principal]) -> rbac_pb2.Principal:
    if len(principals) == 1:
        return principals[0]
    return rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=principals))


def _principals(mesh: str, principals: Iterable[Principal]) -> Iterable[rbac_pb2.Principal]:
    for principal in principals:
        conditions = [
            _authenticated(string_pb2.StringMatcher(exact=uri(mesh, name, value))) for name, value in principal.tags
        ]
        if not conditions:
            # Any caller with an identity of this mesh; never simply "any", which a plaintext peer would match.
            conditions = [_authenticated(string_pb2.StringMatcher(prefix=spiffe.prefix(mesh)))]
        if principal.lacks:
            shown = [_authenticated(string_pb2.StringMatcher(prefix=spiffe.tag_uri(n, ""))) for n in principal.lacks]
            conditions.append(rbac_pb2.Principal(not_id=_all_of(shown)))
        yield _all_of(conditions)


def _authenticated(matcher: string_pb2.StringMatcher) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(authenticated=rbac_pb2.Principal.Authenticated(principal_name=matcher))
