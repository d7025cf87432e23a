"""Whom the inbounds of a mesh admit now: by its permissions, and by those before while leaves cannot show all yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakValueDictionary

from kuma.policy import caller_groups, succession
from kuma.policy.authorization import Admission, Principal
from kuma.policy.caller_groups import Companions, Sharing
from kuma.policy.permissions import Permissions
from kuma.policy.succession import Stage
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane import DataplaneSpec, Inbound
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.listeners.inbound import InboundAccess
from kuma.xds.envoy.mesh_wide.tag_index import TagIndex
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.services.service_members import ServiceMembers, Tags

_Accessed = tuple[tuple[str, ...], Admission, Admission]
"""The services of an inbound, whom it is declared to admit, and whom it admits now."""
_FACETS = 100
"""Facets of inbounds that are kept in mind after the last permission that looks at them is gone."""
_KEPT = 4
"""Rules of an inbound that its gate knows. Callers go by older ones for as long as a handshake lasts."""


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class KnownBy:
    """What inbounds are known by: the same object for all that are known by the same, as long as there are any."""

    facets: Mapping[str, str]
    key: Tags
    """The same in order."""


class Decision(NamedTuple):
    """What listener and routes say of inbounds that are known by the same."""

    access: InboundAccess
    at_every_request: Admission | None
    """Of one that is not HTTP, there is nothing."""


class InboundAdmissions:
    """Decides it, and keeps what it has decided as long as the mesh view is the same.

    Only of the rules before the present ones it knows what it has been asked for; they matter for an instant.
    """

    def __init__(
        self,
        view: MeshView,
        permissions: Permissions,
        stage: Stage,
        members: ServiceMembers,
        previous: InboundAdmissions | None = None,
    ) -> None:
        """Takes over from `previous` what inbounds were known by, and the rules that they had."""
        self._view = view
        self._permissions = permissions
        self._stage = stage
        self._members = members
        self.facets, self._facets_before = self._looked_at(previous)
        self._meanwhile: dict[tuple[Tags, bool], Admission] = {}
        self._groups: dict[tuple[str, ...], Mapping[Sharing, tuple[tuple[str, ...], Companions]]] = (
            previous._groups if previous and previous._members is members else {}
        )
        self._decisions: dict[KnownBy, Decision] = {}
        self._rules: dict[KnownBy, tuple[Admission, ...]] = {}
        self._accesses: dict[_Accessed, InboundAccess] = {}
        self._accesses_before: Mapping[_Accessed, InboundAccess] = previous._accesses if previous else {}
        self._kinds: WeakValueDictionary[Tags, KnownBy] = previous._kinds if previous else WeakValueDictionary()
        self._by_tag: TagIndex = (previous._by_tag if previous else TagIndex(view.dataplanes)).following(
            view.dataplanes
        )
        self._known: dict[Tags, tuple[Admission, ...]] = previous._known if previous else {}
        # What nobody has any more is forgotten.
        if len(self._known) > members.inbounds * (1 + min(members.outbounds, caller_groups.CHAINS)):
            self._known = {}

    def admission_of(self, dataplane: Resource[DataplaneSpec], inbound: Inbound) -> Admission:
        """Returns whom an inbound admits now, while permissions that look at other tags may be taking over."""
        known_by = target_ref.facets(dataplane, inbound, self.facets)
        is_http = inbound.protocol in clusters.HTTP_PROTOCOLS
        return self.staged(self._permissions.admission(known_by), known_by, at_every_request=is_http)

    def staged(self, declared: Admission, known_by: Mapping[str, str], *, at_every_request: bool) -> Admission:
        """Returns whom an inbound admits as long as not everybody can show what the permissions look at."""
        if not declared.source_tags or (self._stage.before is None and not self._stage.unproved):
            return declared
        key = _sorted(known_by), at_every_request
        if key in self._meanwhile:
            return self._meanwhile[key]
        if self._stage.before is None:
            self._meanwhile[key] = succession.as_declared(declared, self._unproved_of, self._wholly)
        else:
            old = self._stage.before.admission(known_by)
            if at_every_request:
                self._meanwhile[key] = succession.for_requests(old, declared, self._services_of)
            else:
                self._meanwhile[key] = succession.for_connections(old, declared, self._stage.shown, self._services_of)
        return self._meanwhile[key]

    def known_by(self, dataplane: Resource[DataplaneSpec], inbound: Inbound) -> KnownBy:
        """Returns what an inbound is known by; it goes for all permissions that look at the same `facets`."""
        facets = target_ref.facets(dataplane, inbound, self.facets)
        key = _sorted(facets)
        found = self._kinds.get(key)
        if found is None:
            found = self._kinds[key] = KnownBy(facets, key)
        return found

    def decision(self, known_by: KnownBy, *, is_http: bool) -> Decision:
        """Returns what is said of the inbounds that are known by this, which are HTTP or not."""
        found = self._decisions.get(known_by)
        if found is None:
            declared = self._permissions.admission(known_by.facets)
            routed = self.staged(declared, known_by.facets, at_every_request=True) if is_http else None
            found = self._decisions[known_by] = Decision(self._access(known_by, declared), routed)
        return found

    def _access(self, known_by: KnownBy, declared: Admission) -> InboundAccess:
        """Returns the very same object for all inbounds of which the same is said, also for that of before."""
        services = tuple(own[tag_rules.SERVICE] for own in target_ref.apart(known_by.facets))
        key = services, declared, self.staged(declared, known_by.facets, at_every_request=False)
        found = self._accesses.get(key)
        if found is None:
            made, before = self._made_of(*key), self._accesses_before.get(key)
            found = self._accesses[key] = before if before is not None and before == made else made
        return found

    def _made_of(self, services: tuple[str, ...], declared: Admission, listed: Admission) -> InboundAccess:
        # On the way between plaintext and mutual TLS callers cannot be told apart; where nobody is admitted, nobody is.
        level = self._view.position.level
        sealed = level is Level.ACCEPTING and not declared.principals
        groups = self._parts_for_groups(services, listed)
        known = self.callers_of(*services)
        labels = tuple(self._of_epoch(self._stage.label_for(declared, known[group][0])) for group, _ in groups)
        return InboundAccess(listed, level is Level.STRICT, sealed, self.label(declared), groups, labels)

    def label(self, admission: Admission) -> str:
        """Labels the connections that an inbound accepts now. Another label makes Envoy drain those of older leaves."""
        return self._of_epoch(self._stage.label(admission))

    def rules(self, known_by: KnownBy, access: InboundAccess) -> tuple[Admission, ...]:
        """Returns the admissions by which callers may have been accepted: that of all, and those of the groups."""
        found = self._rules.get(known_by)
        if found is None:
            known = [*self._lately(known_by.key, access.admission)]
            for groups, part in access.groups:
                lately = self._lately((*known_by.key, ("", " ".join(groups))), part)
                known += (one for one in lately if one.principals)
            found = self._rules[known_by] = tuple(dict.fromkeys(known))
        return found

    def callers_of(self, *called: str) -> Mapping[Sharing, tuple[tuple[str, ...], Companions]]:
        """Returns the groups of the callers of services, with their services in each, and those shown beside them."""
        if called not in self._groups:
            callers = self._members.callers
            names = frozenset[str]().union(*(callers.get(service, frozenset()) for service in called))
            groups = caller_groups.groups(self._view.dataplanes[name].spec.services for name in names)
            beside = self._members.companions
            self._groups[called] = {
                group: (services, {one: beside[one] for one in services if one in beside})
                for group, services in groups.items()
            }
        return self._groups[called]

    def _looked_at(self, previous: InboundAdmissions | None) -> tuple[frozenset[str], frozenset[str]]:
        """Returns what inbounds are known by, besides their tags, now and before that was something else.

        What was looked at once goes on being part of it: the rules that an inbound had are found again by it.
        """
        now = self._permissions.facets | (self._stage.before.facets if self._stage.before else frozenset())
        if previous is None:
            return now, now
        known = previous.facets if len(previous.facets) < _FACETS else frozenset()
        return now | known, previous._facets_before if now <= known else previous.facets

    def _parts_for_groups(self, services: Sequence[str], admission: Admission) -> tuple[tuple[Sharing, Admission], ...]:
        """Returns what an inbound's admission says about each group of the callers of its services."""
        groups = sorted(self.callers_of(*services).items())
        return tuple((group, caller_groups.part_for(admission, *known)) for group, known in groups)

    def _of_epoch(self, label: str) -> str:
        epoch = self._view.position.epoch
        return f"{label}@{epoch}" if epoch else label

    def _lately(self, inbound: Tags, admission: Admission) -> tuple[Admission, ...]:
        """Returns the admissions of an inbound, the one that holds now first, and few of those before it."""
        before = self._known.get(inbound)
        if before is None and self.facets != self._facets_before:
            known_then = (p for p in inbound if target_ref.is_tag(p[0]) or p[0] in self._facets_before)
            before = self._known.get(tuple(known_then))
        others = (known for known in before or () if known != admission)
        found = self._known[inbound] = (admission, *others)[:_KEPT]
        return found

    def _services_of(self, principal: Principal) -> Iterable[str]:
        """Returns the services whose Dataplanes have all that a principal says."""
        return self._by_tag.services(principal.tags)

    def _unproved_of(self, principal: Principal) -> Iterable[str]:
        return self._by_tag.services(principal.tags) & self._stage.unproved

    def _wholly(self, principal: Principal) -> Iterable[str]:
        """Returns those of the services that are not proved all of whose Dataplanes have all that a principal says."""
        names, members = self._by_tag.names(principal.tags), self._members.services
        return (service for service in self._unproved_of(principal) if members.get(service, {}).keys() <= names)


def _sorted(tags: Mapping[str, str]) -> Tags:
    return tuple(sorted(tags.items()))
