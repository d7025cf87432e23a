"""Explains what becomes of a call: by which rule, with which certificate, over which listener. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal

from kuma.base.values.urls import host_port
from kuma.foresight.course import Insights
from kuma.foresight.judge import Dataplane, Judge
from kuma.pki import spiffe
from kuma.policy import authorization, decision
from kuma.policy.authorization import Admission
from kuma.policy.decision import Shown, Verdict
from kuma.policy.matching import match
from kuma.resources import kinds
from kuma.resources import tags as tag_rules
from kuma.resources.models import dataplane as dataplanes
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane import Inbound
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Model
from kuma.resources.view import MeshView

_MOST = 200


class Rule(Model):
    """A rule that is about the caller, and what it says: `Allow`, `Deny` or `AllowWithShadowDeny`."""

    type: str
    name: str
    action: str


class Explanation(Model):
    """What becomes of one caller at one inbound. `shows` is what its certificate says, or would say."""

    caller: str
    shows: tuple[str, ...]
    certificate_expires: datetime | None = None
    issued_by: str = ""
    service: str
    dataplane: str
    listener: str
    mode: Literal["off", "PERMISSIVE", "STRICT"]
    verdict: Verdict
    why: str
    rules: tuple[Rule, ...] = ()


def explain(view: MeshView, insights: Insights, caller: str, called: str) -> tuple[Explanation, ...]:
    """Returns what becomes of calls.

    Either side may be a service, a Dataplane, or what a log line says: a SPIFFE ID, or a listener of Envoy such as
    `inbound:10.0.0.1:8080`.
    """
    judge = Judge(view)
    found = (
        _explained(judge, insights, name, shown, dataplane, inbound)
        for dataplane, inbound in _called(view, called)
        for name, shown in _callers(judge, caller)
    )
    return tuple(explanation for explanation, _ in zip(found, range(_MOST), strict=False))


def _called(view: MeshView, called: str) -> Iterator[tuple[Dataplane, Inbound]]:
    for name, dataplane in sorted(view.dataplanes.items()):
        for inbound in dataplane.spec.net.inbound:
            known_as = (
                name,
                inbound.service,
                _listener(dataplane, inbound),
                spiffe.service_id(view.name, inbound.service),
            )
            if called in known_as:
                yield dataplane, inbound


def _callers(judge: Judge, caller: str) -> Iterator[tuple[str, Shown]]:
    """Yields each Dataplane that is meant, with what it shows; if there is none, whoever shows that service."""
    mesh = judge.view.name
    service = caller.removeprefix(spiffe.prefix(mesh))
    known = [
        (name, judge.shown_by(dataplane))
        for name, dataplane in sorted(judge.view.dataplanes.items())
        if caller == name or service in dataplane.spec.services
    ]
    alike: dict[Shown, str] = {}
    for name, shown in known:
        alike.setdefault(shown, name)
    yield from ((name, shown) for shown, name in alike.items())
    if not known:
        yield caller, frozenset({(tag_rules.SERVICE, service)})


def _explained(
    judge: Judge, insights: Insights, caller: str, shown: Shown, dataplane: Dataplane, inbound: Inbound
) -> Explanation:
    mesh, admission = judge.view.name, judge.admission(dataplane, inbound)
    verdict = judge.of_mesh(shown, dataplane, inbound)
    rules = tuple(_rules(judge, dataplane, inbound, shown, admission))
    own = insights.get(caller)
    certificate = own.mtls if own else None
    return Explanation(
        caller=caller,
        shows=tuple(
            sorted(spiffe.service_id(mesh, v) if n == tag_rules.SERVICE else spiffe.tag_uri(n, v) for n, v in shown)
        ),
        certificate_expires=certificate.certificate_expiration_time if certificate else None,
        issued_by=certificate.issued_backend if certificate else "",
        service=inbound.service,
        dataplane=dataplane.name,
        listener=_listener(dataplane, inbound),
        mode=_MODES[judge.level],
        verdict=verdict,
        why=_why(judge, admission, verdict, rules),
        rules=rules,
    )


_MODES: Mapping[Level, Literal["off", "PERMISSIVE", "STRICT"]] = {
    Level.PLAIN: "off",
    Level.ENCRYPTING: "PERMISSIVE",
    Level.STRICT: "STRICT",
}


def _listener(dataplane: Dataplane, inbound: Inbound) -> str:
    """Returns the listener's name, as logs and statistics of Envoy have it."""
    return f"inbound:{host_port(dataplanes.listen_address(dataplane.spec.net, inbound), inbound.port)}"


def _rules(judge: Judge, dataplane: Dataplane, inbound: Inbound, shown: Shown, admission: Admission) -> Iterable[Rule]:
    """Yields the rules that decide at an inbound and are about the caller."""
    facets = target_ref.facets(dataplane, inbound, judge.permissions.facets)
    selecting = [
        permission
        for permission in authorization.effective(judge.view.mesh_permissions.values())
        if match(permission.spec.selected, facets) is not None
    ]
    for permission in selecting:
        for action, principal in authorization.statements(permission):
            if decision.means(principal, shown):
                yield Rule(type=kinds.MESH_TRAFFIC_PERMISSION.name, name=permission.name, action=action)
    if not selecting and admission.permission and any(decision.means(p, shown) for p in admission.principals):
        yield Rule(type=kinds.TRAFFIC_PERMISSION.name, name=admission.permission, action="Allow")


def _why(judge: Judge, admission: Admission, verdict: Verdict, rules: tuple[Rule, ...]) -> str:
    if judge.level is Level.PLAIN:
        return "mutual TLS is off: nobody is asked who it is"
    denials = [rule for rule in rules if rule.action == "Deny"]
    if denials:
        return f"denied by {', '.join(sorted({rule.name for rule in denials}))}, whatever else allows it"
    if verdict == "wouldBeRefused":
        return "allowed, and counted as refused by a rule in shadow mode"
    if verdict == "allowed":
        return f"allowed by {', '.join(sorted({rule.name for rule in rules}))}"
    if not admission.permission:
        return "no permission selects the inbound: it admits nobody"
    return f"what decides here, {admission.permission}, does not name this caller"
