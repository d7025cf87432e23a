"""Examines the health of a mesh: what is wrong, or will be, and what to do about it. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kuma.base.values.quantities import counted
from kuma.foresight import course, permission_health, traffic
from kuma.foresight.course import Insights
from kuma.foresight.findings import Finding, Problem, findings, some
from kuma.foresight.judge import Judge
from kuma.foresight.traffic import TrafficSummary
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.models.mesh_transition import Level
from kuma.resources.view import MeshView

_REPORTERS = "start them by the kuma-dp of this version, with Envoy 1.37 or later"
_CA_NOTICE = timedelta(days=30)
_LONG_HELD_UP = timedelta(minutes=5)


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
        finding for name, looks, fine in _CHECKS for finding in findings(mesh.view.name, name, list(looks(mesh)), fine)
    )


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
        yield "failure", f"without a certificate: {some(without)}", "see PROBLEMS of `kumactl inspect meshes`"
    if ended:
        remedy = "see whether the authority can issue, and whether their tokens hold"
        yield "failure", f"certificate expired and not rotated: {some(ended)}", remedy


def _tokens(mesh: Examined) -> Iterator[Problem]:
    tokens = [(name, one.token) for name, one in _of_dataplanes(mesh) if one.token is not None]
    ended = [name for name, token in tokens if token.expiration_time <= mesh.now]
    near = [name for name, token in tokens if token.warning_time <= mesh.now < token.expiration_time]
    remedy = "make new ones with kumactl generate dataplane-token; kuma-dp reads its file again"
    if ended:
        yield "failure", f"ended: {some(ended)}", remedy
    if near:
        yield "warning", f"near their end: {some(near)}", remedy


def _convergence(mesh: Examined) -> Iterator[Problem]:
    if mesh.view.transition is None:
        return
    spec = mesh.view.transition.spec
    if spec.unresponsive:
        names = some([one.name for one in spec.unresponsive])
        yield "failure", f"no longer waited for: {names}", "restart them, or delete their Dataplanes if they are gone"
    if not spec.complete and spec.since is not None and mesh.now - spec.since > _LONG_HELD_UP:
        waited = some([one.name for one in spec.waiting_for]) or "nobody in particular"
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
        yield "warning", "mutual TLS is off", f"see what STRICT would do: {_strict(mesh.view.name)}"
    elif level is Level.ENCRYPTING:
        if plaintext.callers_last_hour:
            found = f"PERMISSIVE, and {counted(plaintext.callers_last_hour, 'plaintext caller')} in the last hour"
            yield "warning", found, "who they are: kumactl inspect traffic --plaintext"
        else:
            last = f" since {plaintext.last:%Y-%m-%d %H:%M} UTC" if plaintext.last else ""
            found = f"PERMISSIVE, and no plaintext caller was seen{last}{_hardly_observed(mesh)}"
            yield "warning", found, f"ask whether it can go STRICT: {_strict(mesh.view.name)}"
    if mesh.summary.unobserved_total:
        who = counted(mesh.summary.unobserved_total, "Dataplane")
        yield "warning", f"not known who calls {who}: {some(mesh.summary.unobserved)}", _REPORTERS


def _hardly_observed(mesh: Examined) -> str:
    """Says if proxies have not reported for so long that who is connected must have been seen; empty if they have."""
    since = mesh.summary.since
    if since is None:
        return ", and no proxy has reported yet"
    return f"; not observed before {since:%Y-%m-%d %H:%M} UTC" if mesh.now - since < traffic.UNSEEN else ""


def _refusals(mesh: Examined) -> Iterator[Problem]:
    number = mesh.summary.refused_last_hour
    if number:
        found = f"{counted(number, 'caller was', 'callers were')} refused in the last hour"
        remedy = f"who: kumactl inspect traffic --mesh {mesh.view.name}; why: kumactl explain call CALLER SERVICE"
        yield "warning", found, remedy


def _strict(mesh: str) -> str:
    """Says how to ask what STRICT would do."""
    copied = f"kumactl get mesh {mesh} -o yaml > mesh.yaml"
    return f"{copied}; set mode: STRICT of the enabled backend in it; kumactl preview -f mesh.yaml"


def _clocks(mesh: Examined) -> Iterator[Problem]:
    for clock in mesh.summary.clocks_off:
        how = "ahead of" if clock.ahead_seconds > 0 else "behind"
        found = f"{clock.dataplane}: its clock is {abs(clock.ahead_seconds)} s {how} the control plane's"
        yield "warning", found, "synchronise both: certificates are refused before they begin and after they end"


_CHECKS = (
    ("authorities", _authorities, "every authority can issue, and none ends within 30 days"),
    ("certificates", _certificates, "every connected proxy has a certificate that holds"),
    ("tokens", _tokens, "no token of a proxy is near its end"),
    ("convergence", _convergence, "no change is held up"),
    ("proxies", _proxies, "all proxies are connected, run what they should, and serve all inbounds"),
    ("plaintext", _plaintext, "nobody is let in without a certificate of the mesh"),
    ("refusals", _refusals, "nobody was refused in the last hour"),
    ("clocks", _clocks, "no clock of a proxy that reports is off by a minute"),
    ("permissions", lambda mesh: permission_health.problems(mesh.view), "every permission decides somewhere"),
)


def _of_dataplanes(mesh: Examined) -> Iterable[tuple[str, DataplaneInsightSpec]]:
    return sorted((name, one) for name, one in mesh.insights.items() if name in mesh.view.dataplanes)


def _ends(insight: DataplaneInsightSpec) -> datetime | None:
    return insight.mtls.certificate_expiration_time if insight.mtls else None
