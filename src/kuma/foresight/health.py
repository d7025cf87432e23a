"""Examines the health of a mesh: what is wrong, or will be, and what to do about it. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from kuma.base.values.quantities import counted
from kuma.foresight import course
from kuma.foresight.course import Insights
from kuma.foresight.judge import Judge
from kuma.foresight.preview import REPORTERS
from kuma.foresight.traffic import TrafficSummary
from kuma.policy.matching import match
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Model
from kuma.resources.view import MeshView

Status = Literal["ok", "warning", "failure"]
_NAMED = 5
_CA_NOTICE = timedelta(days=30)
_LONG_HELD_UP = timedelta(minutes=5)


class Finding(Model):
    """The result of one check of one mesh; `mesh` is empty for the control plane itself."""

    mesh: str
    check: str
    status: Status
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """What is looked at."""

    view: MeshView
    insights: Insights
    summary: TrafficSummary
    now: datetime


def examine(mesh: Examined) -> tuple[Finding, ...]:
    """Returns a finding for each check: what is wrong, or one that says that nothing is."""
    return tuple(
        finding for name, looks, fine in _CHECKS for finding in _findings(mesh.view.name, name, list(looks(mesh)), fine)
    )


Problem = tuple[Status, str, str]
"""How bad it is, what was found, and the remedy."""


def _findings(mesh: str, name: str, problems: Sequence[Problem], fine: str) -> Iterator[Finding]:
    for status, found, remedy in problems:
        yield Finding(mesh=mesh, check=name, status=status, found=found, remedy=remedy)
    if not problems:
        yield Finding(mesh=mesh, check=name, status="ok", found=fine)


def _authorities(mesh: Examined) -> Iterator[Problem]:
    transition = mesh.view.transition
    known = {backend.name: backend for backend in transition.spec.backends} if transition else {}
    for backend in mesh.view.backends:
        status = known.get(backend.name)
        if status is None:
            continue
        if status.problem:
            remedy = "see the log of the control plane; apply the Secrets that it lacks, or another backend"
            yield "failure", f"{backend.name}: {status.problem}", remedy
        elif status.renewal_overdue:
            yield "failure", f"{backend.name}: its root should have been renewed", "see the log of the control plane"
        elif status.not_after is not None and status.not_after - mesh.now < _CA_NOTICE:
            when = f"{backend.name} ends at {status.not_after:%Y-%m-%d %H:%M} UTC"
            yield "warning", when, "apply another CA as a second backend, enable it, then remove this one"


def _certificates(mesh: Examined) -> Iterator[Problem]:
    if mesh.view.position.level is Level.PLAIN:
        return
    online = [(name, one) for name, one in _of_dataplanes(mesh) if one.online]
    without = [name for name, one in online if one.mtls is None]
    ended = [name for name, one in online if _ends(one) is not None and (_ends(one) or mesh.now) <= mesh.now]
    if without:
        yield "failure", f"without a certificate: {_some(without)}", "see PROBLEMS of `kumactl inspect meshes`"
    if ended:
        remedy = "see whether the authority can issue, and whether their tokens hold"
        yield "failure", f"certificate expired and not rotated: {_some(ended)}", remedy


def _tokens(mesh: Examined) -> Iterator[Problem]:
    tokens = [(name, one.token) for name, one in _of_dataplanes(mesh) if one.token is not None]
    ended = [name for name, token in tokens if token.expiration_time <= mesh.now]
    near = [name for name, token in tokens if token.warning_time <= mesh.now < token.expiration_time]
    remedy = "make new ones with kumactl generate dataplane-token; kuma-dp reads its file again"
    if ended:
        yield "failure", f"ended: {_some(ended)}", remedy
    if near:
        yield "warning", f"near their end: {_some(near)}", remedy


def _convergence(mesh: Examined) -> Iterator[Problem]:
    if mesh.view.transition is None:
        return
    spec = mesh.view.transition.spec
    if spec.unresponsive:
        names = _some([one.name for one in spec.unresponsive])
        yield "failure", f"no longer waited for: {names}", "restart them, or delete their Dataplanes if they are gone"
    if not spec.complete and spec.since is not None and mesh.now - spec.since > _LONG_HELD_UP:
        waited = _some([one.name for one in spec.waiting_for]) or "nobody in particular"
        yield "warning", f"a change has been under way since {spec.since:%H:%M:%S} UTC, waiting for {waited}", _FOLLOW
    if spec.problem:
        yield "failure", spec.problem, _FOLLOW


_FOLLOW = "follow it: kumactl inspect meshes --watch"


def _proxies(mesh: Examined) -> Iterator[Problem]:
    for laggard in course.laggards(mesh.view, mesh.insights, mesh.now):
        rejects = laggard.reason.startswith("rejects")
        remedy = "its Envoy's reason is above; see `kumactl inspect dataplane NAME --type config-dump`"
        gone = "start its kuma-dp again, or delete its Dataplane if it is gone"
        if "token" not in laggard.reason:
            found = f"{laggard.dataplane} {laggard.reason}"
            yield ("failure", found, remedy) if rejects else ("warning", found, gone)
    for name, one in _of_dataplanes(mesh):
        for reason in one.withheld_inbounds:
            yield "failure", f"{name}: an inbound is not served: {reason}", "change the Dataplane, or allow it"


def _plaintext(mesh: Examined) -> Iterator[Problem]:
    level, plaintext = Judge(mesh.view).level, mesh.summary.plaintext
    if level is Level.PLAIN:
        yield "warning", "mutual TLS is off", "see what STRICT would do: kumactl preview -f mesh.yaml"
    elif level is Level.ENCRYPTING:
        if plaintext.callers_last_hour:
            found = f"PERMISSIVE, and {counted(plaintext.callers_last_hour, 'plaintext caller')} in the last hour"
            yield "warning", found, "who they are: kumactl inspect traffic --plaintext"
        else:
            last = f" since {plaintext.last:%Y-%m-%d %H:%M} UTC" if plaintext.last else ""
            found = f"PERMISSIVE, and no plaintext caller was seen{last}"
            yield "warning", found, "ask whether it can go STRICT: kumactl preview -f mesh.yaml"
    if mesh.summary.unobserved_total:
        who = counted(mesh.summary.unobserved_total, "Dataplane")
        yield "warning", f"not known who calls {who}: {_some(mesh.summary.unobserved)}", REPORTERS


def _clocks(mesh: Examined) -> Iterator[Problem]:
    for clock in mesh.summary.clocks_off:
        how = "ahead of" if clock.ahead_seconds > 0 else "behind"
        found = f"{clock.dataplane}: its clock is {abs(clock.ahead_seconds)} s {how} the control plane's"
        yield "warning", found, "synchronise both: certificates are refused before they begin and after they end"


def _permissions(mesh: Examined) -> Iterator[Problem]:
    judge = Judge(mesh.view)
    inbounds = [(d, i) for d in mesh.view.dataplanes.values() for i in d.spec.net.inbound]
    known = (target_ref.facets(dataplane, inbound, judge.permissions.facets) for dataplane, inbound in inbounds)
    each = (own for known_by in known for own in target_ref.apart(known_by))
    facets = [dict(different) for different in {tuple(sorted(own.items())) for own in each}]
    deciding = {judge.permissions.admission(known_by).permission for known_by in facets}
    services = {service for d in mesh.view.dataplanes.values() for service in d.spec.services}
    for name, permission in sorted(mesh.view.permissions.items()):
        selects = any(match(d.match, known_by) is not None for d in permission.spec.destinations for known_by in facets)
        sources = [source.match.get(tag_rules.SERVICE, tag_rules.ANY) for source in permission.spec.sources]
        missing = [source for source in sources if source != tag_rules.ANY and source not in services]
        if not selects:
            yield "warning", f"TrafficPermission {name} selects no inbound", "correct its destinations, or delete it"
        elif name not in deciding:
            found = f"TrafficPermission {name} decides nowhere: more specific or newer permissions take its place"
            yield "warning", found, "delete it, or make it more specific; permissions do not add up"
        if missing:
            found = f"TrafficPermission {name} names sources that no Dataplane is: {_some(missing)}"
            yield "warning", found, "correct their names, or remove them"
    for name, targeting in sorted(mesh.view.mesh_permissions.items()):
        if not any(match(targeting.spec.selected, known_by) is not None for known_by in facets):
            yield "warning", f"MeshTrafficPermission {name} selects no inbound", "correct its targetRef, or delete it"
    if judge.level is not Level.PLAIN and inbounds and not mesh.view.permissions and not mesh.view.mesh_permissions:
        yield "warning", "no permission: every call is refused", "see kumactl suggest permissions"


_CHECKS = (
    ("authorities", _authorities, "every authority can issue, and none ends within 30 days"),
    ("certificates", _certificates, "every connected proxy has a certificate that holds"),
    ("tokens", _tokens, "no token of a proxy is near its end"),
    ("convergence", _convergence, "no change is held up"),
    ("proxies", _proxies, "all proxies are connected, run what they should, and serve all inbounds"),
    ("plaintext", _plaintext, "nobody is let in without a certificate of the mesh"),
    ("clocks", _clocks, "no clock of a proxy that reports is off by a minute"),
    ("permissions", _permissions, "every permission decides somewhere"),
)


def settings(configuration: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Returns what is unsafe of the control plane's settings."""
    api, access = configuration.get("apiServer", {}), configuration.get("access", {})
    authn = api.get("authn", {})
    http = api.get("http", {})
    problems: list[Problem] = []
    if access.get("anonymousReads"):
        problems.append(
            ("warning", "whoever reaches the API reads what is not secret", "unset KUMA_ACCESS_ANONYMOUS_READS")
        )
    if tag_rules.ANY in authn.get("localhostAdminUsers", ()):
        remedy = "name users in KUMA_API_SERVER_AUTHN_LOCALHOST_ADMIN_USERS"
        problems.append(("failure", "everybody on the control plane's machine is administrator", remedy))
    if http.get("enabled") and not _is_local(str(http.get("interface", ""))):
        remedy = "let others use HTTPS, and set KUMA_API_SERVER_HTTP_INTERFACE=127.0.0.1"
        problems.append(
            ("warning", "the API is served in plaintext to other machines: tokens travel in the clear", remedy)
        )
    if not configuration.get("xdsServer", {}).get("observedTraffic", True):
        problems.append(
            ("warning", "observed traffic is off: nobody knows who calls", "unset KUMA_XDS_SERVER_OBSERVED_TRAFFIC")
        )
    return tuple(_findings("", "settings", problems, "no setting is unsafe"))


def _is_local(interface: str) -> bool:
    return interface in ("localhost", "::1") or interface.startswith("127.")


def _of_dataplanes(mesh: Examined) -> Iterable[tuple[str, DataplaneInsightSpec]]:
    return sorted((name, one) for name, one in mesh.insights.items() if name in mesh.view.dataplanes)


def _ends(insight: DataplaneInsightSpec) -> datetime | None:
    return insight.mtls.certificate_expiration_time if insight.mtls else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
