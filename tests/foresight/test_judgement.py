"""Explanations of calls, suggested permissions, and the health of a mesh: each finding with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from kuma.foresight import control_plane_health, explanation, health, suggestions, traffic
from kuma.foresight.health import Examined
from kuma.foresight.judge import Judge
from kuma.foresight.traffic import ClockOff, PlaintextSummary, TrafficSummary
from kuma.pki import own_ca
from kuma.pki.validity import Validity
from kuma.resources import kinds
from kuma.resources.kinds import Kind
from kuma.resources.models.dataplane_insight import (
    DataplaneInsightSpec,
    MtlsInsight,
    Status,
    Subscription,
    TokenInsight,
    TypeResponses,
)
from kuma.resources.models.mesh_transition import Awaited, BackendStatus
from kuma.resources.models.observed_traffic import Edge, ObservedTrafficSpec
from kuma.resources.view import MeshView
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource
from tests.fakes.views import arrived

NOW = datetime(2026, 1, 10, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(days=1), NOW + timedelta(days=20)
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
WEB, BACKEND = dataplane("web-01", "web", calls=("backend",)), dataplane("backend-01", "backend", port=81)
WEB_ONLY = ALLOW_ALL.replace("'*'", "web", 1).replace("allow-all", "web-only")
DENIES = (
    "{type: MeshTrafficPermission, mesh: default, name: no-web, spec: {targetRef: {kind: MeshService, name: backend}, "
    "from: [{targetRef: {kind: Mesh}, default: {action: Allow}}, "
    "{targetRef: {kind: MeshService, name: web}, default: {action: Deny}}]}}"
)


def view(*texts: str) -> MeshView:
    resources = [WEB, BACKEND, *map(resource, texts)]
    return arrived(MeshView("default").following({one.key: one for one in resources}))


@pytest.mark.parametrize(
    ("texts", "caller", "called", "verdict", "why", "rules"),
    [
        ((MTLS, WEB_ONLY), "web", "backend", "allowed", "allowed by web-only", [("web-only", "Allow")]),
        ((MTLS, WEB_ONLY), "web-01", "backend-01", "allowed", "allowed by web-only", [("web-only", "Allow")]),
        ((MTLS, WEB_ONLY), "spiffe://default/other", "inbound:10.0.0.1:81", "refused",
         "what decides here, web-only, does not name this caller", []),
        ((MTLS, WEB_ONLY, DENIES), "web", "backend", "refused", "denied by no-web, whatever else allows it",
         [("no-web", "Allow"), ("no-web", "Deny")]),
        ((MTLS,), "web", "backend", "refused", "no permission selects the inbound: it admits nobody", []),
        (("{type: Mesh, name: default}",), "web", "backend", "allowed", "mutual TLS is off: nobody is asked who it is",
         []),
    ],
)  # fmt: skip
def test_a_call_is_explained_by_names_of_people_and_of_log_lines(
    texts: tuple[str, ...], caller: str, called: str, verdict: str, why: str, rules: list[tuple[str, str]]
) -> None:
    (found,) = explanation.explain(view(*texts), {}, caller, called)
    assert (found.verdict, found.why, [(r.name, r.action) for r in found.rules]) == (verdict, why, rules)
    assert (found.service, found.dataplane, found.listener) == ("backend", "backend-01", "inbound:10.0.0.1:81")
    assert found.shows == (f"spiffe://default/{'other' if 'other' in caller else 'web'}",)


def test_an_address_of_a_log_line_is_whoever_is_there_and_whoever_has_no_certificate() -> None:
    for mode, verdict in ((PERMISSIVE, "allowed"), (MTLS, "refused")):
        for address in ("10.0.0.1", "10.0.0.1:51234"):
            found = explanation.explain(view(mode, WEB_ONLY), {}, address, "inbound:10.0.0.1:81")
            assert {(one.caller, one.verdict) for one in found} == {
                ("web-01", "allowed"), ("backend-01", "refused"),
                ("10.0.0.1 without a certificate of the mesh", verdict),
            }  # fmt: skip
    (stranger,) = explanation.explain(view(MTLS, ALLOW_ALL), {}, "[2001:db8::1]:80", "backend")
    assert (stranger.verdict, stranger.shows) == ("refused", ())


def test_a_caller_whom_nobody_knows_is_told_to_be_one() -> None:
    (typo,) = explanation.explain(view(MTLS, ALLOW_ALL), {}, "wbe", "backend")
    (known,) = explanation.explain(view(MTLS, ALLOW_ALL), {}, "web", "backend")
    assert (typo.verdict, "no Dataplane" in typo.doubt, known.doubt) == ("allowed", True, "")


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert not explanation.explain(view(MTLS), {}, "web", "nobody")


SERVICES = ("web", "backend", "third")
CALLS = st.sets(st.tuples(st.sampled_from(SERVICES), st.sampled_from(SERVICES)), max_size=6)


@given(calls=CALLS, kind=st.sampled_from([kinds.TRAFFIC_PERMISSION, kinds.MESH_TRAFFIC_PERMISSION]))
def test_suggested_permissions_admit_what_was_seen_and_nobody_else(calls: set[tuple[str, str]], kind: Kind) -> None:
    described = [dataplane(f"{name}-01", name, port=80 + number) for number, name in enumerate(SERVICES)]
    found = MeshView("default").following({one.key: one for one in [*described, resource(MTLS)]})
    observed: dict[str, ObservedTrafficSpec] = {}
    for number, called in enumerate(SERVICES):
        edges = tuple(
            Edge(service=called, port=80 + number, how="meshTls", outcome="allowed", first=NOW, last=NOW,
                 uris=(f"spiffe://default/{caller}",))
            for caller, service in sorted(calls) if service == called
        )  # fmt: skip
        observed[f"{called}-01"] = ObservedTrafficSpec(since=NOW, edges=edges)
    made = suggestions.suggested(found, traffic.callers(found, observed, NOW), kind)
    judge = Judge(found.following({one.key: one for one in made.permissions}))
    for caller in described:
        for called_one in described:
            verdict = judge.of_mesh(judge.shown_by(caller), called_one, called_one.spec.net.inbound[0])
            pair = caller.spec.services[0], called_one.spec.services[0]
            assert (verdict == "allowed") == (pair in calls)


def test_callers_without_an_identity_are_left_out_of_suggestions() -> None:
    edge = Edge(service="backend", port=81, how="plaintext", outcome="allowed", first=NOW, last=NOW, address="10.9.9.9")
    found = view(PERMISSIVE)
    callers = traffic.callers(found, {"backend-01": ObservedTrafficSpec(since=NOW, edges=(edge,))}, NOW)
    made = suggestions.suggested(found, callers, kinds.MESH_TRAFFIC_PERMISSION)
    assert (made.permissions, [caller.address for caller in made.left_out]) == ((), ["10.9.9.9"])


def insight(**more: Any) -> DataplaneInsightSpec:
    connected = Subscription(id="1", connect_time=EARLIER, status=more.pop("status", Status()))
    held = more.pop("mtls", MtlsInsight(certificate_expiration_time=LATER))
    return DataplaneInsightSpec(subscriptions=(connected,), mtls=held, **more)


def examined(
    found: MeshView, insights: Mapping[str, DataplaneInsightSpec] | None = None, **summary: Any
) -> dict[str, list[tuple[str, str]]]:
    """What each check has found, but for those that are well."""
    known = {"web-01": insight(), "backend-01": insight()} if insights is None else insights
    answers: dict[str, list[tuple[str, str]]] = {}
    for one in health.examine(Examined(found, known, TrafficSummary(mesh="default", **summary), NOW)):
        if one.status != "ok":
            assert one.remedy, one
            answers.setdefault(one.check, []).append((one.status, one.found))
    return answers


def with_transition(found: MeshView, **update: Any) -> MeshView:
    assert found.transition is not None
    spec = found.transition.spec.model_copy(update=update)
    return found.having(found.transition.with_spec(spec))


def test_a_mesh_that_is_well_has_no_findings() -> None:
    assert examined(view(MTLS, ALLOW_ALL)) == {}


STRICT = view(MTLS, ALLOW_ALL)
ENDED = TokenInsight(expiration_time=EARLIER, warning_time=EARLIER)
REJECTING = Status(lds=TypeResponses(last_rejection="no such filter"))


@pytest.mark.parametrize(
    ("check", "status", "words", "arguments"),
    [
        ("authorities", "failure", "cannot be opened",
         (with_transition(STRICT, backends=(BackendStatus(name="ca-1", problem="cannot be opened"),)),)),
        ("authorities", "warning", "ca-1 ends at",
         (with_transition(STRICT, backends=(BackendStatus(name="ca-1", not_after=LATER),)),)),
        ("certificates", "failure", "without a certificate: web-01", (STRICT, {"web-01": insight(mtls=None)})),
        ("certificates", "failure", "not rotated: web-01",
         (STRICT, {"web-01": insight(mtls=MtlsInsight(certificate_expiration_time=EARLIER))})),
        ("tokens", "failure", "ended: web-01", (STRICT, {"web-01": insight(token=ENDED)})),
        ("convergence", "failure", "no longer waited for: web-01",
         (with_transition(STRICT, unresponsive=(Awaited(name="web-01"),)),)),
        ("convergence", "warning", "waiting for web-01",
         (with_transition(STRICT, since=EARLIER, waiting_for=(Awaited(name="web-01"),)),)),
        ("proxies", "failure", "rejects its configuration: no such filter",
         (STRICT, {"web-01": insight(status=REJECTING)})),
        ("proxies", "failure", "not served: port 9901",
         (STRICT, {"web-01": insight(withheld_inbounds=("port 9901",))})),
        ("plaintext", "warning", "mutual TLS is off", (view("{type: Mesh, name: default}", ALLOW_ALL),)),
        ("permissions", "warning", "web-only decides nowhere",
         (view(MTLS, WEB_ONLY, ALLOW_ALL.replace("'*'}}]}", "backend}}]}").replace("allow-all", "one"),
               ALLOW_ALL.replace("'*'}}]}", "web}}]}").replace("allow-all", "two")),)),
        ("permissions", "warning", "lost selects no inbound",
         (view(MTLS, ALLOW_ALL, ALLOW_ALL.replace("'*'}}]}", "nowhere}}]}").replace("allow-all", "lost")),)),
        ("permissions", "warning", "names sources that no Dataplane is: nobody",
         (view(MTLS, ALLOW_ALL.replace("'*'", "nobody", 1)),)),
        ("permissions", "warning", "names callers that no Dataplane is: nobody",
         (view(MTLS, DENIES.replace("no-web", "typo").replace("name: web", "name: nobody")),)),
        ("permissions", "warning", "MeshTrafficPermission typo selects no inbound",
         (view(MTLS, ALLOW_ALL, DENIES.replace("no-web", "typo").replace("name: backend", "name: nowhere")),)),
        ("permissions", "warning", "MeshTrafficPermission web allows kuma.io/service=web is denied everywhere",
         (view(MTLS, DENIES, DENIES.replace("no-web", "web").replace("Deny", "Allow")),)),
        ("permissions", "warning", "no permission: every call is refused", (view(MTLS),)),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_and_has_a_remedy(
    check: str, status: str, words: str, arguments: tuple[Any, ...]
) -> None:
    found = examined(*arguments)
    assert set(found) == {check}
    ((how, text),) = found[check]
    assert (how, words in text) == (status, True), text


def test_plaintext_that_is_left_and_clocks_that_are_off_are_told_with_what_to_do() -> None:
    permissive = view(PERMISSIVE, ALLOW_ALL)
    plaintext = PlaintextSummary(callers_last_hour=2, last=NOW)
    assert examined(permissive, plaintext=plaintext) == {
        "plaintext": [("warning", "PERMISSIVE, and 2 plaintext callers in the last hour")]
    }
    assert examined(permissive)["plaintext"][0][1] == (
        "PERMISSIVE, and no plaintext caller was seen, and no proxy has reported yet"
    )
    for before, expected in (
        (traffic.UNSEEN, ""),
        (timedelta(minutes=30), "; not observed before 2026-01-09 23:30 UTC"),
    ):
        (_, found), *_ = examined(permissive, since=NOW - before)["plaintext"]
        assert found == f"PERMISSIVE, and no plaintext caller was seen{expected}"
    off = (ClockOff(dataplane="web-01", ahead_seconds=-90),)
    assert examined(STRICT, clocks_off=off) == {
        "clocks": [("warning", "web-01: its clock is 90 s behind the control plane's")]
    }
    assert "not known who calls 1 Dataplane: x" in str(examined(STRICT, unobserved=("x",), unobserved_total=1))


def test_who_was_refused_lately_is_told() -> None:
    def edge(name: str, outcome: Any, ago: timedelta) -> Edge:
        return Edge(service="backend", port=81, how="plaintext", outcome=outcome, first=EARLIER, last=NOW - ago,
                    address=name)  # fmt: skip

    soon, before = timedelta(minutes=5), timedelta(hours=3)
    edges = (edge("10.1.1.1", "refused", soon), edge("10.1.1.2", "refused", before), edge("10.1.1.3", "allowed", soon))
    summary = traffic.summary(STRICT, {"backend-01": ObservedTrafficSpec(since=EARLIER, edges=edges)}, NOW)
    assert summary.refused_last_hour == 1
    assert examined(STRICT, refused_last_hour=1) == {"refusals": [("warning", "1 caller was refused in the last hour")]}


def test_unsafe_settings_are_told() -> None:
    open_to_all = {"apiServer": {"http": {"enabled": True, "interface": "0.0.0.0"}}, "access": {"anonymousReads": True}}
    assert [one.status for one in control_plane_health.settings(open_to_all)] == ["warning", "warning"]
    assert [one.status for one in control_plane_health.settings({})] == ["ok"]


@pytest.mark.parametrize(
    ("life", "left", "status"),
    [
        (timedelta(days=90), timedelta(days=30), "ok"),
        (timedelta(days=90), timedelta(days=14), "warning"),
        (timedelta(days=1), timedelta(hours=6), "ok"),
        (timedelta(days=1), timedelta(hours=4), "warning"),
        (timedelta(days=1), timedelta(), "failure"),
    ],
)
def test_a_server_certificate_that_was_not_replaced_in_time_is_told(
    life: timedelta, left: timedelta, status: str
) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cp")])
    ends = NOW + left
    shown = Validity.of(own_ca.new_ca(name, ends - life, life).certificate)
    (found,) = control_plane_health.certificate(shown, NOW)
    assert (found.status, f"{ends:%Y-%m-%d %H:%M} UTC" in found.found) == (status, True)
    assert bool(found.remedy) is (status != "ok")


def test_control_planes_whose_clocks_or_versions_differ_are_told() -> None:
    own: dict[str, Any] = {"name": "a", "version": "1", "leader": True, "clockDifferenceSeconds": 0.1}
    other = {**own, "name": "b", "leader": False}
    assert [one.status for one in control_plane_health.control_planes([own, other])] == ["ok"]
    for bad, status, words in (
        ({**other, "clockDifferenceSeconds": -90.0}, "warning", "b: its clock, or its word, is 90 s behind"),
        ({**other, "version": "2"}, "warning", "several versions: 1, 2"),
    ):
        (found,) = control_plane_health.control_planes([own, bad])
        assert (found.status, words in found.found, bool(found.remedy)) == (status, True, True), found
    (headless,) = control_plane_health.control_planes([{**own, "leader": False}, other])
    assert headless.status == "failure"
