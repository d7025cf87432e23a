"""Finds what a change weakens: who is admitted after it and was not before, without being named by it.

A permission that names callers admits them, and that is what was asked for. What else lets somebody in is told: mutual
TLS that goes, a denial that is lifted, a permission that took the place of a wider one and does so no more, everybody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kuma.base.errors import Violation
from kuma.policy.authorization import Principal, effective, principals, statements
from kuma.policy.permissions import Permissions
from kuma.resources import kinds
from kuma.resources import tags as tag_rules
from kuma.resources.models.blocks import metrics
from kuma.resources.models.blocks.mesh_blocks import Membership
from kuma.resources.models.mesh import Backend, MeshSpec, weakening_is_refused
from kuma.resources.models.mesh_traffic_permission import ALLOW, SHADOW_DENY
from kuma.resources.resource import Resource

Pairs = frozenset[tuple[str, str]]
Selector = Mapping[str, str]
SOME = "*"
"""Stands for a value that no selector names."""


def of_mesh(
    old: Resource[MeshSpec] | None, new: Resource[MeshSpec], *, guarded: bool, foreign: Collection[str] = ()
) -> Iterator[Violation]:
    """Returns what a changed Mesh weakens.

    `guarded`: all meshes refuse it, unless they say otherwise. `foreign` names the backends whose authority others may
    have, too: not those that the control plane makes.
    """
    if old is None:
        return
    if weakening_is_refused(old.labels, guarded) and not weakening_is_refused(new.labels, guarded):
        yield Violation("labels", "removes the guard of the mesh: what weakens it is not refused from now on")
    yield from _of_membership(old.spec.membership, new.spec.membership)
    if new.spec.passes_through and not old.spec.passes_through:
        yield Violation(
            "networking.outbound.passthrough",
            "is not false any more: workloads whose traffic is redirected call whatever is outside of the mesh",
        )
    before, after = old.spec.enabled_backend, new.spec.enabled_backend
    if before is None:
        return
    if after is None:
        left_out = new.spec.mtls is None
        yield Violation(
            "mtls" if left_out else "mtls.enabledBackend",
            f"{'is left out' if left_out else 'is empty'}: this turns mutual TLS off, plaintext is sent and admitted, "
            "and no permission is enforced any more",
        )
    elif before.mode == "STRICT" and after.mode == "PERMISSIVE":
        yield Violation(
            f"mtls.backends[{new.spec.backends.index(after)}].mode",
            "STRICT becomes PERMISSIVE: plaintext callers are admitted, whatever permissions say",
        )
    yield from _of_trust(old.spec, new.spec, foreign)
    if after is not None and _metrics_are_public(new.spec) and not _metrics_are_public(old.spec):
        yield Violation("metrics", metrics.EVERYBODY)
    if after is not None and after.leaf_lifetime > before.leaf_lifetime:
        yield Violation(
            f"mtls.backends[{new.spec.backends.index(after)}].dpCert.rotation.expiration",
            f"certificates hold for {after.leaf_lifetime}, and not for {before.leaf_lifetime}: a stolen one is of use "
            "for as long",
        )


def _metrics_are_public(mesh: MeshSpec) -> bool:
    scraping = metrics.scraping(mesh.metrics, None)
    return scraping is not None and scraping.plaintext


def _of_trust(old: MeshSpec, new: MeshSpec, foreign: Collection[str]) -> Iterator[Violation]:
    """Whoever has an authority that is listed can be any service; that the enabled one is, is what was asked for."""
    before = {backend.name: _authority(backend) for backend in old.backends}
    for index, backend in enumerate(new.backends):
        is_further = new.enabled_backend is not None and backend.name != new.enabled_backend.name
        if is_further and backend.name in foreign and before.get(backend.name) != _authority(backend):
            yield Violation(f"mtls.backends[{index}]", further_trust(backend))


def further_trust(backend: Backend) -> str:
    """Says what it means that another authority is listed beside the one that is enabled."""
    return (
        f'"{backend.name}" does not issue, and is trusted from now on: whoever has a certificate of it is taken for '
        "the service that it names"
    )


def _authority(backend: Backend) -> object:
    return backend.type, backend.settings


def of_revocations(old: Iterable[str], new: Iterable[str]) -> Iterator[Violation]:
    """Returns what it weakens that tokens, by their `jti`, are revoked no more."""
    lifted = sorted(set(old) - set(new))
    if lifted:
        more = f" (and {len(lifted) - 1} more)" if len(lifted) > 1 else ""
        yield Violation("data", f"the token {lifted[0]}{more} is revoked no more, and holds until it expires")


def _of_membership(old: Membership, new: Membership) -> Iterator[Violation]:
    """Dataplanes may be members that could not be: a restriction is gone, or another requirement is enough."""
    path = "constraints.dataplaneProxy"
    if any(restriction not in new.restrictions for restriction in old.restrictions):
        yield Violation(f"{path}.restrictions", "a restriction is gone: Dataplanes that it kept out may be members")
    if old.requirements and (not new.requirements or any(one not in old.requirements for one in new.requirements)):
        yield Violation(f"{path}.requirements", "Dataplanes may be members that fulfil none of the old requirements")


@dataclass(slots=True)
class Widening:
    """Compares the permissions of a mesh before and after one of them was created, changed or deleted."""

    before: Permissions
    after: Permissions
    old: Resource[Any] | None
    new: Resource[Any] | None

    def weakenings(self) -> Iterator[Violation | None]:
        """Yields what is weakened; None between, for others to have their turn."""
        (targets, callers), (targets_before, callers_before) = _named(self.new), _named(self.old)

        def granted(inbound: Selector, caller: Pairs) -> bool:
            """Tells whether the change itself names this caller, and where; the pairs of both may be a million."""
            there = [target for target in targets if _selects(target, inbound)]
            return bool(there) and any(
                not (wanted in callers_before and target in targets_before)
                for wanted in callers
                if wanted <= caller
                for target in there
            )

        if self.old is None and not _admits_unnamed(self.new):
            return  # nobody but those that it names
        told: list[tuple[Pairs, Pairs]] = []
        for inbound in self._inbounds():
            yield None
            for caller in self._newly_admitted(inbound):
                if caller is None:
                    yield None
                elif not granted(inbound, caller):
                    where = known(inbound)
                    if not any(wider <= where and less <= caller for wider, less in told):
                        told.append((where, caller))
                        yield Violation(_field(self.new or self.old), _told(where, caller))
                    break

    def _inbounds(self) -> Iterator[Selector]:
        """Yields the least inbound for each combination of what selects it: others tell nothing more."""
        own = {_pairs(s): s for permission in (self.old, self.new) if permission for s in selectors(permission)}
        everything = (*self.before.legacy.values(), *self.before.mesh.values())
        others = {_pairs(s): s for permission in everything for s in selectors(permission)}
        seen = set()
        for selector in own.values():
            for other in ({}, *own.values(), *others.values()):
                inbound = both(selector, other)
                if inbound is not None and _pairs(inbound) not in seen:
                    seen.add(_pairs(inbound))
                    yield inbound

    def _newly_admitted(self, inbound: Selector) -> Iterator[Pairs | None]:
        """Callers, as little as they have to show, who are admitted now and were not; None between."""
        old, new = self.before.admission(inbound), self.after.admission(inbound)
        lifted = [frozenset(p.tags) for p in old.denied if p not in frozenset(new.denied)]
        denied, allowed = Named(new.denied), Named(old.principals)
        for principal in new.principals:
            carried = frozenset(principal.tags)
            yield None
            if not allowed.name(carried) and not denied.name(carried):
                yield carried
            for more in lifted:
                if not denied.name(carried | more):
                    yield carried | more


class Named:
    """Principals, found by the rarest of their tags."""

    def __init__(self, some: Iterable[Principal]) -> None:
        self._by_first: dict[tuple[str, str], list[Pairs]] = {}
        self._everybody = False
        for principal in some:
            if principal.tags:
                self._by_first.setdefault(principal.tags[-1], []).append(frozenset(principal.tags))
            self._everybody = self._everybody or not principal.tags

    def name(self, caller: Pairs) -> bool:
        """Tells whether one of them is shown by a caller that carries these tags."""
        return self._everybody or any(wanted <= caller for pair in caller for wanted in self._by_first.get(pair, ()))


def selectors(permission: Resource[Any]) -> Iterator[Selector]:
    """Returns the tags by which a permission selects inbounds."""
    if permission.key.kind == kinds.TRAFFIC_PERMISSION.name:
        yield from (destination.match for destination in permission.spec.destinations)
    else:
        yield permission.spec.selected


def _named(permission: Resource[Any] | None) -> tuple[frozenset[Pairs], frozenset[Pairs]]:
    """Returns where a permission admits, and the callers that it admits there by name.

    Whom it denies for a trial only is not meant to be admitted.
    """
    if permission is None:
        return frozenset(), frozenset()
    callers = frozenset(frozenset(principal.tags) for principal in _allowed(permission, ALLOW) if principal.tags)
    return frozenset(map(_pairs, selectors(permission))), callers


def _admits_unnamed(permission: Resource[Any] | None) -> bool:
    """Tells whether a permission admits everybody, or somebody whom it denies for a trial."""
    if permission is None:
        return False
    return Principal() in _allowed(permission, ALLOW) or bool(_allowed(permission, SHADOW_DENY))


def _allowed(permission: Resource[Any], action: str) -> tuple[Principal, ...]:
    """Returns the callers about whom a permission says this."""
    if permission.key.kind == kinds.TRAFFIC_PERMISSION.name:
        return principals(permission) if action == ALLOW else ()
    said = (statement for one in effective((permission,)) for statement in statements(one))
    return tuple(principal for said_of, principal in said if said_of == action)


def _pairs(selector: Selector) -> Pairs:
    return frozenset(selector.items())


def both(one: Selector, other: Selector) -> Selector | None:
    """Returns what both select; None if nothing can be. Every inbound is of some service."""
    found = {tag_rules.SERVICE: SOME, **one}
    for name, value in other.items():
        if found.get(name, SOME) == SOME:
            found[name] = value
        elif value not in (SOME, found[name]):
            return None
    return found


def _selects(target: Pairs, inbound: Selector) -> bool:
    return all(name in inbound and value in (SOME, inbound[name]) for name, value in target)


def _field(permission: Resource[Any] | None) -> str:
    assert permission is not None  # something has changed
    return "sources" if permission.key.kind == kinds.TRAFFIC_PERMISSION.name else f"spec.{permission.spec.section}"


def known(inbound: Selector) -> Pairs:
    """Returns the tags of an inbound, without those that stand for any value."""
    return frozenset((name, value) for name, value in inbound.items() if value != SOME)


def _told(inbound: Pairs, caller: Pairs) -> str:
    who = f"callers with {words(caller)}" if caller else "all callers with an identity of the mesh"
    where = words(inbound)
    return f"{who} are admitted by {f'inbounds with {where}' if where else 'every inbound'}, and were not before"


def words(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns tags as people write them."""
    return " ".join(f"{name}={value}" for name, value in sorted(pairs))
