"""Explains what becomes of a call: by which rule, with which certificate, over which listener. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal, NamedTuple

from kuma.base.values import addresses
from kuma.base.values.urls import host_port
from kuma.foresight.course import Insights
from kuma.foresight.judge import Dataplane, Judge
from kuma.foresight.traffic import Addresses
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
    """Outcome for one caller at one inbound. `shows` is what its certificate says, or would say."""

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
    doubt: str = ""
    """Why the caller may be somebody else."""
    rules: tuple[Rule, ...] = ()


def explain(view: MeshView, insights: Insights, caller: str, called: str) -> tuple[Explanation, ...]:
    """Returns what becomes of calls.

    Either side may be a service, a Dataplane, or what a log line says: a SPIFFE ID, a listener of Envoy such as
    `inbound:10.0.0.1:8080`, or the address that a caller came from, with its port or without.
    """
    judge = Judge(view)
    callers = list(_callers(judge, caller))
    found = (
        _explained(judge, insights, one, dataplane, inbound)
        for dataplane, inbound in _called(view, called)
        for one in callers
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


class _Caller(NamedTuple):
    """A caller, with what its certificate shows: None if it has none of the mesh."""

    name: str
    shown: Shown | None
    doubt: str = ""
    """Why it may be somebody else."""


def _callers(judge: Judge, caller: str) -> Iterator[_Caller]:
    """Yields each Dataplane that is meant, with what it shows; if there is none, whoever comes from that address, or
    shows that service."""
    mesh = judge.view.name
    service = caller.removeprefix(spiffe.prefix(mesh))
    known = [
        dataplane
        for name, dataplane in sorted(judge.view.dataplanes.items())
        if caller == name or service in dataplane.spec.services
    ]
    yield from _alike(judge, known)
    address = _address(caller)
    if not known and address:
        yield from _at(judge, address)
    elif not known:
        doubt = f'no Dataplane of mesh "{mesh}" is called so now; this is about whoever shows such a certificate'
        yield _Caller(caller, frozenset({(tag_rules.SERVICE, service)}), doubt)


def _at(judge: Judge, address: str) -> Iterator[_Caller]:
    """Yields the Dataplanes at an address, by their certificates, and whoever calls from there without one."""
    here = Addresses.of(judge.view).names.get(address, ())
    yield from _alike(judge, (judge.view.dataplanes[name] for name in here))
    yield _Caller(f"{address} without a certificate of the mesh", None)


def _alike(judge: Judge, dataplanes: Iterable[Dataplane]) -> Iterator[_Caller]:
    """Yields one of those each whose certificates show the same."""
    alike: dict[Shown, str] = {}
    for dataplane in dataplanes:
        alike.setdefault(judge.shown_by(dataplane), dataplane.name)
    yield from (_Caller(name, shown) for shown, name in alike.items())


def _address(text: str) -> str:
    """Returns the address in what a log line says of where a caller came from; empty if it says something else."""
    host, _, port = text.rpartition(":")
    parsed = addresses.parse(text) or (addresses.parse(host.strip("[]")) if port.isdecimal() else None)
    return str(parsed) if parsed else ""


def _explained(
    judge: Judge, insights: Insights, caller: _Caller, dataplane: Dataplane, inbound: Inbound
) -> Explanation:
    mesh, admission = judge.view.name, judge.admission(dataplane, inbound)
    shown = caller.shown
    verdict = judge.unverified if shown is None else judge.of_mesh(shown, dataplane, inbound)
    rules = () if shown is None else tuple(_rules(judge, dataplane, inbound, shown))
    own = insights.get(caller.name)
    certificate = own.mtls if own else None
    return Explanation(
        caller=caller.name,
        shows=tuple(
            sorted(
                spiffe.service_id(mesh, v) if n == tag_rules.SERVICE else spiffe.tag_uri(n, v) for n, v in shown or ()
            )
        ),
        certificate_expires=certificate.certificate_expiration_time if certificate else None,
        issued_by=certificate.issued_backend if certificate else "",
        service=inbound.service,
        dataplane=dataplane.name,
        listener=_listener(dataplane, inbound),
        mode=_MODES[judge.level],
        verdict=verdict,
        why=_unverified(judge.level) if shown is None else _why(judge, admission, verdict, rules),
        doubt=caller.doubt,
        rules=rules,
    )


def _unverified(level: Level) -> str:
    return {
        Level.PLAIN: "mutual TLS is off: nobody is asked who it is",
        Level.STRICT: "STRICT refuses whoever does not show a certificate of the mesh",
    }.get(level, "PERMISSIVE lets in whoever does not show a certificate of the mesh, and permissions are not about it")


_MODES: Mapping[Level, Literal["off", "PERMISSIVE", "STRICT"]] = {
    Level.PLAIN: "off",
    Level.ENCRYPTING: "PERMISSIVE",
    Level.STRICT: "STRICT",
}


def _listener(dataplane: Dataplane, inbound: Inbound) -> str:
    """Returns the listener's name, as logs and statistics of Envoy have it."""
    return f"inbound:{host_port(dataplanes.listen_address(dataplane.spec.net, inbound), inbound.port)}"


def _rules(judge: Judge, dataplane: Dataplane, inbound: Inbound, shown: Shown) -> Iterable[Rule]:
    """Yields the rules that decide at an inbound, and at those at its place, and are about the caller."""
    known_by = target_ref.facets(dataplane, inbound, judge.permissions.facets)
    return dict.fromkeys(rule for own in target_ref.apart(known_by) for rule in _rules_of(judge, own, shown))


def _rules_of(judge: Judge, facets: Mapping[str, str], shown: Shown) -> Iterator[Rule]:
    selecting = [
        permission
        for permission in authorization.effective(judge.view.mesh_permissions.values())
        if match(permission.spec.selected, facets) is not None
    ]
    for permission in selecting:
        for action, principal in authorization.statements(permission):
            if decision.means(principal, shown):
                yield Rule(type=kinds.MESH_TRAFFIC_PERMISSION.name, name=permission.name, action=action)
    admission = judge.permissions.admission(facets)
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
