"""Finds what an edited Dataplane weakens: whom its workloads admit by other tags, and which denials it leaves. Pure.

An inbound is admitted to by its tags, and a caller is denied by its own: an edit of a Dataplane moves it out of what
permissions say just as an edit of a permission does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kuma.base.errors import Violation
from kuma.base.values import addresses
from kuma.policy.authorization import Admission, effective, statements
from kuma.policy.decision import REFUSED, Shown, carried, means, verdict
from kuma.policy.permissions import Permissions
from kuma.policy.weakening import Named, Pairs, Selector, both, known, selectors, words
from kuma.resources.models import target_ref
from kuma.resources.models.blocks import metrics
from kuma.resources.models.dataplane import DataplaneSpec, workload
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.mesh_traffic_permission import DENY
from kuma.resources.resource import Resource


@dataclass(frozen=True, slots=True)
class EditedDataplane:
    """Compares a Dataplane that is replaced with what replaces it, by the permissions of its mesh."""

    permissions: Permissions
    mesh: MeshSpec
    old: Resource[DataplaneSpec]
    new: Resource[DataplaneSpec]

    def weakenings(self) -> Iterator[Violation | None]:
        """Yields what is weakened; None between, for others to have their turn."""
        yield from self._newly_admitted()
        yield from self._no_more_denied()
        before, after = (metrics.scraping(self.mesh.metrics, each.spec.metrics) for each in (self.old, self.new))
        if after is not None and after.plaintext and not (before is not None and before.plaintext):
            yield Violation("metrics.conf", metrics.EVERYBODY)

    def _newly_admitted(self) -> Iterator[Violation | None]:
        """Compares who reaches each workload, by whatever inbound."""
        before: dict[tuple[str, int], list[Admission]] = {}
        for place, admission in self._admissions(self.old):
            yield None
            before.setdefault(place, []).append(admission)
        for index, (place, admission) in enumerate(self._admissions(self.new)):
            yield None
            admitted = before.get(place, [])
            if not admitted or any(admission is one or admission == one for one in admitted):
                continue  # what is not served yet has no callers to be kept from it
            for caller in _admitted(admitted, admission):
                yield None
                if caller is not None:
                    who = f"callers with {words(caller)}" if caller else "all callers with an identity of the mesh"
                    text = f"{who} reach the workload at port {place[1]} by it, and did not before"
                    yield Violation(f"networking.inbound[{index}]", text)
                    break

    def _admissions(self, dataplane: Resource[DataplaneSpec]) -> Iterator[tuple[tuple[str, int], Admission]]:
        networking, wanted = dataplane.spec.net, self.permissions.facets
        for inbound in networking.inbound:
            address, port = workload(networking, inbound)
            facets = target_ref.facets(dataplane, inbound, wanted)
            yield (addresses.reached(address) or address, port), self.permissions.admission(facets)

    def _no_more_denied(self) -> Iterator[Violation | None]:
        """Compares what the Dataplane is let into as a caller, where it was denied: names that it takes are meant."""
        looked_at = self.permissions.source_tags
        was, is_now = (carried(each.spec.tag_values, looked_at) for each in (self.old, self.new))
        if was == is_now:
            return
        others: list[Selector] | None = None
        for permission in effective(self.permissions.mesh.values()):
            left = None
            for action, principal in statements(permission):
                yield None
                if action == DENY and means(principal, was) and not means(principal, is_now):
                    left = principal
                    break
            if left is None:
                continue
            if others is None:
                others = [each for one in self.permissions.mesh.values() for each in selectors(one)]
            yield from self._let_in(permission.name, permission.spec.selected, others, was, is_now)

    def _let_in(
        self, name: str, denied_at: Selector, others: Sequence[Selector], was: Shown, is_now: Shown
    ) -> Iterator[Violation | None]:
        for other in ({}, *others):
            yield None
            inbound = both(denied_at, other)
            if inbound is None:
                continue
            admission = self.permissions.admission(inbound)
            if verdict(admission, was) == REFUSED != verdict(admission, is_now):
                where = words(known(inbound))
                by = f"inbounds with {where}" if where else "any inbound"
                text = f"has denied is denied no more by {by}, and is admitted there"
                yield Violation("networking", f'what the MeshTrafficPermission "{name}" {text}')
                return


def _admitted(before: Sequence[Admission], after: Admission) -> Iterator[Pairs | None]:
    """Yields callers, as little as they have to show, who are admitted now and were by none before; None between."""
    known_before = [(Named(each.principals), Named(each.denied)) for each in before]
    denied = Named(after.denied)
    still = frozenset(after.denied)
    lifted = {frozenset(principal.tags) for each in before for principal in each.denied if principal not in still}
    for principal in after.principals:
        least = frozenset(principal.tags)
        for more in (frozenset[tuple[str, str]](), *lifted):
            caller = least | more
            admitted = any(allowed.name(caller) and not refused.name(caller) for allowed, refused in known_before)
            yield None if admitted or denied.name(caller) else caller
