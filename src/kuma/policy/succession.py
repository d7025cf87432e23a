"""Stages in which new permissions take over, while leaves cannot show yet the tags that they select by. Pure.

Permissions that look at a tag make leaves carry it. Until every proxy has such a leaf, and every connection that was
opened with another one has ended, a rule that looks at the tag would take a caller that cannot show it for one that
does not have it: it would refuse who is admitted before and after, and admit who is to be refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from kuma.policy import caller_groups
from kuma.policy.authorization import Admission, Principal
from kuma.policy.permissions import Permissions
from kuma.resources import tags as tag_rules

Named = Callable[[Principal], Iterable[str]]
"""A principal -> services that have, among their Dataplanes, all of those that it means."""


class Renamed(NamedTuple):
    """Counts of leaves that have been replaced because of another name, where it is known whose they were.

    `times` is how often that was; `counts` has, by the group of each service that such a leaf showed, how often it did.
    """

    times: int = 0
    counts: tuple[tuple[str, int], ...] = ()


NONE_APART = Renamed()


@dataclass(frozen=True)
class Stage:
    """Stage that the leaves and the connections of a mesh have reached after a change of its permissions.

    `shown` are the tags that every leaf shows, and `renamed` is how often the leaves of Dataplanes that got other names
    have been replaced. `before` are the permissions that decide about who cannot show yet what those of today look at;
    None when nobody is left of that kind. `carried` are tags that leaves go on carrying for rules that proxies may
    still run.
    """

    shown: frozenset[str] = frozenset()
    renamed: int = 0
    before: Permissions | None = None
    carried: frozenset[str] = frozenset()
    renamed_apart: Renamed = NONE_APART
    """Those of the `renamed` of which the services are known."""
    unproved: frozenset[str] = frozenset()
    """Services of Dataplanes that may be known by less, where nobody knows which permissions decided before: a control
    plane that has just begun. Their Dataplanes, as they are declared, say meanwhile what their leaves cannot."""

    def label(self, admission: Admission) -> str:
        """Labels filter chains by what callers could show when they connected; empty for what has always been so.

        Under another label, connections were opened that can show less than the rule looks at: Envoy drains them.
        """
        return self._label(admission, str(self.renamed) if self.renamed else "")

    def label_for(self, admission: Admission, services: Iterable[str]) -> str:
        """Labels a filter chain that admits callers with one of these services only, and judges each once.

        What others were called, nobody has been admitted by there.
        """
        known = {caller_groups.group((service,)) for service in services}
        counts = [count for count in self.renamed_apart.counts if count[0] in known]
        renamed = str(self.renamed - self.renamed_apart.times) if self.renamed > self.renamed_apart.times else ""
        if counts:
            renamed += f".{hashlib.sha256(repr(counts).encode()).hexdigest()[:8]}"
        return self._label(admission, renamed)

    def _label(self, admission: Admission, renamed: str) -> str:
        tags = sorted(admission.source_tags & self.shown)
        return f"{','.join(tags)}/{renamed or 0}" if tags or renamed else ""

    def begin(self, old: Permissions, new: Permissions) -> Stage:
        """Other permissions are declared: leaves carry what either looks at, and the old ones decide meanwhile."""
        before = self.before if self.before is not None else old
        carried = (self.carried | old.source_tags) - new.source_tags
        return replace(self, before=before if new.source_tags else None, carried=carried)

    def learned(self, declared: Permissions, renamed: int, apart: Renamed = NONE_APART) -> Stage:
        """Returns the stage once every leaf is as it is to be: new connections show all that is looked at."""
        return replace(self, shown=declared.source_tags | self.carried, renamed=renamed, renamed_apart=apart)

    def settled(self, declared: Permissions) -> Stage:
        """Tells whether everybody can show what is looked at, and no proxy runs the permissions before."""
        return Stage(declared.source_tags, self.renamed, renamed_apart=self.renamed_apart)


def for_connections(old: Admission, new: Admission, shown: frozenset[str], named: Named) -> Admission:
    """Returns whom to admit where callers are judged once, when they connect.

    While leaves do not show all that `new` looks at, `old` decides whom to admit if it admits anybody; what `new`
    denies by a tag is denied by the name of the service.
    """
    unseen = new.source_tags - shown
    if not unseen:
        return new
    decides = old if old.principals else new
    denied = {*old.denied, *new.denied, *_by_name(new.denied, unseen, named)}
    return replace(decides, denied=tuple(sorted(denied)))


def for_requests(old: Admission, new: Admission, named: Named) -> Admission:
    """Returns whom to admit where callers are judged at every request, by the leaf of their connection.

    A leaf that shows all that only `new` looks at is judged by `new`. About any other `old` decides, but for what `new`
    denies, by name.
    """
    unseen = new.source_tags - old.source_tags
    if not unseen:
        return new
    lacking = tuple(sorted(unseen))
    principals = {*new.principals, *(replace(principal, lacks=lacking) for principal in old.principals)}
    denied = {*new.denied, *(replace(principal, lacks=lacking) for principal in old.denied)}
    denied |= set(_by_name(new.denied, unseen, named))
    return replace(new, principals=tuple(sorted(principals)), denied=tuple(sorted(denied)))


def as_declared(new: Admission, named: Named, wholly: Named) -> Admission:
    """Returns whom to admit where only what is declared is known of callers that cannot show what `new` looks at.

    Whoever is of a service is admitted by its name if all of its Dataplanes are (`wholly`), and denied if one is.
    """
    allowed = {
        Principal(((tag_rules.SERVICE, service),), lacking)
        for principal in new.principals
        if (lacking := _looked_at(principal, new.source_tags))
        for service in sorted(wholly(principal))[:_MOST_NAMES]
    }
    denied = {*new.denied, *_by_name(new.denied, new.source_tags, named)}
    principals = tuple(sorted({*new.principals, *allowed}))
    return replace(new, principals=principals, denied=tuple(sorted(denied)))


def _looked_at(principal: Principal, unseen: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted({name for name, _ in principal.tags} & unseen))


def _by_name(denied: Iterable[Principal], unseen: frozenset[str], named: Named) -> Iterator[Principal]:
    """Returns those who are denied by tags that their leaves may not show, by the names of their services."""
    found: dict[tuple[str, ...], set[str]] = {}
    for principal in denied:
        lacking = _looked_at(principal, unseen)
        if lacking:
            found.setdefault(lacking, set()).update(named(principal))
    for lacking, services in found.items():
        if len(services) > _MOST_NAMES:
            yield Principal(lacks=lacking)
        else:
            yield from (Principal(((tag_rules.SERVICE, service),), lacking) for service in services)


_MOST_NAMES = 500
"""Services that are named in one rule; where there are more, nobody passes whose leaf does not show the tags."""
