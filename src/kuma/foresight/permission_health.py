"""Examines the permissions of a mesh. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from kuma.foresight.findings import Problem, some
from kuma.foresight.judge import Judge
from kuma.policy import authorization, decision
from kuma.policy.authorization import MeshPermission
from kuma.policy.matching import match
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.mesh_transition import Level
from kuma.resources.view import MeshView

_NAMES = "correct their names, or remove them"


def problems(view: MeshView) -> Iterator[Problem]:
    """Yields what is wrong with the permissions of a mesh: what selects or names nobody, or is overridden."""
    judge = Judge(view)
    inbounds = [(d, i) for d in view.dataplanes.values() for i in d.spec.net.inbound]
    known = (target_ref.facets(dataplane, inbound, judge.permissions.facets) for dataplane, inbound in inbounds)
    each = (own for known_by in known for own in target_ref.apart(known_by))
    facets = [dict(different) for different in {tuple(sorted(own.items())) for own in each}]
    deciding = {judge.permissions.admission(known_by).permission for known_by in facets}
    services = {service for d in view.dataplanes.values() for service in d.spec.services}
    for name, permission in sorted(view.permissions.items()):
        selects = any(match(d.match, known_by) is not None for d in permission.spec.destinations for known_by in facets)
        sources = [source.match.get(tag_rules.SERVICE, tag_rules.ANY) for source in permission.spec.sources]
        missing = [source for source in sources if source != tag_rules.ANY and source not in services]
        if not selects:
            yield "warning", f"TrafficPermission {name} selects no inbound", "correct its destinations, or delete it"
        elif name not in deciding:
            found = f"TrafficPermission {name} decides nowhere: more specific or newer permissions take its place"
            yield "warning", found, "delete it, or make it more specific; permissions do not add up"
        if missing:
            found = f"TrafficPermission {name} names sources that no Dataplane is: {some(missing)}"
            yield "warning", found, _NAMES
    for _, targeting in sorted(view.mesh_permissions.items()):
        yield from _targeting(judge, targeting, facets, services)
    if judge.level is not Level.PLAIN and inbounds and not view.permissions and not view.mesh_permissions:
        yield "warning", "no permission: every call is refused", "see kumactl suggest permissions"


def _targeting(
    judge: Judge, permission: MeshPermission, facets: Sequence[Mapping[str, str]], services: Collection[str]
) -> Iterator[Problem]:
    """Yields what is wrong with a MeshTrafficPermission: it selects nothing, names nobody, or is overridden."""
    title = f"MeshTrafficPermission {permission.name}"
    selected = [known_by for known_by in facets if match(permission.spec.selected, known_by) is not None]
    if not selected:
        yield "warning", f"{title} selects no inbound", "correct its targetRef, or delete it"
        return
    said = list(authorization.statements(permission))
    named = {value for _, principal in said for tag, value in principal.tags if tag == tag_rules.SERVICE}
    missing = sorted(named - set(services))
    if missing:
        yield "warning", f"{title} names callers that no Dataplane is: {some(missing)}", _NAMES
    admissions = [judge.permissions.admission(known_by) for known_by in selected]
    for principal in [principal for action, principal in said if action != "Deny"]:
        callers = [shown for shown in judge.all_shown if decision.means(principal, shown)]
        if callers and all(decision.verdict(a, shown) == decision.REFUSED for a in admissions for shown in callers):
            who = ", ".join(f"{tag}={value}" for tag, value in principal.tags) or "everybody"
            found = f"what {title} allows {who} is denied everywhere: a denial overrides it"
            yield "warning", found, "remove the denial, or what it overrides; kumactl explain call says which denies"
