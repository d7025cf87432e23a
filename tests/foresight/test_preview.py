"""What people are told before they change a mesh: who would be refused, can it go STRICT, and how it would go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from demo.processes import BIN
from kuma.foresight import preview, traffic
from kuma.foresight.course import Pace
from kuma.foresight.preview import Known, Preview
from kuma.resources import codec
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec, Subscription
from kuma.resources.models.observed_traffic import Edge, ObservedTrafficSpec
from kuma.resources.view import MeshView
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource, running
from tests.fakes.reports import entry, report
from tests.fakes.views import arrived

NOW = datetime(2026, 1, 10, tzinfo=UTC)
LONG, LATELY = NOW - timedelta(days=9), NOW - timedelta(hours=2)
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
OFF = "{type: Mesh, name: default}"
NOBODY_ELSE = ALLOW_ALL.replace("'*'", "api", 1)
WEB, BACKEND = dataplane("web-01", "web", calls=("backend",)), dataplane("backend-01", "backend", port=81)


def view(*texts: str) -> MeshView:
    resources = [WEB, BACKEND, *map(resource, texts)]
    return arrived(MeshView("default").following({one.key: one for one in resources}))


def mesh_call(caller: str = "web") -> Edge:
    return Edge(service="backend", port=81, how="meshTls", outcome="allowed", first=LONG, last=LATELY, connections=7,
                uris=(f"spiffe://default/{caller}",))  # fmt: skip


def plaintext_call(address: str = "10.9.9.9", outcome: Any = "allowed") -> Edge:
    return Edge(service="backend", port=81, how="plaintext", outcome=outcome, first=LONG, last=LATELY, connections=3,
                address=address)  # fmt: skip


def ask(
    before: MeshView,
    *texts: str,
    calls: Sequence[Edge] = (),
    since: datetime = LONG,
    insights: Mapping[str, DataplaneInsightSpec] | None = None,
    unobserved: bool = False,
    within: timedelta | None = None,
) -> Preview:
    specs = {name: ObservedTrafficSpec(since=since, edges=tuple(calls) if name == "backend-01" else ())
             for name in ("web-01", *(() if unobserved else ("backend-01",)))}  # fmt: skip
    callers, summary = traffic.callers(before, specs, NOW), traffic.summary(before, specs, NOW)
    known = Known(callers, summary, insights or {}, NOW, within=within)
    changes = preview.by_mesh(map(resource, texts), ())
    return preview.preview(before, changes["default"], known)


def test_can_it_go_strict_is_answered_with_what_is_missing() -> None:
    permissive = view(PERMISSIVE, ALLOW_ALL)
    yes = ask(permissive, MTLS, calls=[mesh_call()])
    assert yes.strict is not None
    assert (yes.strict.answer, yes.strict.missing, yes.breaks) == ("yes", (), False)
    assert "began to call in plaintext over HTTP after 2026-01-09 22:00 UTC" in yes.strict.reservation

    no = ask(permissive, MTLS, calls=[mesh_call(), plaintext_call()])
    assert no.strict is not None
    assert (no.strict.answer, no.breaks) == ("no", True)
    (caller,) = no.callers
    assert (caller.caller, caller.effect, caller.last, caller.connections) == ("10.9.9.9", "refused", LATELY, 3)

    inside = ask(permissive, MTLS, calls=[plaintext_call("10.0.0.1")])
    assert inside.strict is not None
    assert inside.strict.missing == (
        "1 caller at an address of Dataplanes passes its proxy by and would be cut off: have it call its proxy's "
        "outbound, or redirect it (transparent proxying)",
    )

    for doubtful in (ask(permissive, MTLS, since=LATELY), ask(permissive, MTLS, unobserved=True)):
        assert doubtful.strict is not None
        assert (doubtful.strict.answer, doubtful.breaks) == ("unknown", False)
        assert doubtful.strict.missing


def test_a_mesh_without_mutual_tls_goes_strict_without_those_that_have_a_proxy_being_cut_off() -> None:
    unchecked = [plaintext_call("10.0.0.1", "unchecked"), plaintext_call("10.9.9.9", "unchecked")]
    found = ask(view(OFF, ALLOW_ALL), MTLS, calls=unchecked)
    assert [(c.caller, c.effect) for c in found.callers] == [("10.9.9.9", "refused")]
    refused = ask(view(OFF), MTLS, calls=unchecked)
    assert {(c.caller, c.why) for c in refused.callers if c.seen} == {
        ("10.0.0.1", "no permission selects what it calls"),
        ("10.9.9.9", "STRICT refuses whoever does not show a certificate of the mesh"),
    }


def test_a_narrower_permission_names_who_loses_it_and_who_could() -> None:
    before = view(MTLS, ALLOW_ALL)
    seen = ask(before, NOBODY_ELSE, calls=[mesh_call()])
    assert [(c.caller, c.service, c.effect, c.seen) for c in seen.callers] == [("web", "backend", "refused", True)]
    assert (seen.breaks, seen.strict, seen.steps) == (True, None, ())
    declared = ask(before, NOBODY_ELSE)
    assert [(c.caller, c.seen) for c in declared.callers] == [("web", False)]
    assert not declared.breaks
    assert ask(before, NOBODY_ELSE, unobserved=True).breaks, "nobody knows that it does not call"


def test_callers_that_go_with_the_change_lose_nothing_and_those_of_what_goes_do() -> None:
    before, known = view(MTLS, ALLOW_ALL), {"backend-01": ObservedTrafficSpec(since=LONG, edges=(mesh_call(),))}
    summary, callers = traffic.summary(before, known, NOW), traffic.callers(before, known, NOW)
    gone = preview.preview(before, {WEB.key: None}, Known(callers, summary, {}, NOW))
    assert not gone.callers
    served_no_more = preview.preview(before, {BACKEND.key: None}, Known(callers, summary, {}, NOW))
    assert [(c.caller, c.why) for c in served_no_more.callers] == [("web", "nobody serves it any more")]


def test_who_cannot_follow_and_which_steps_there_are() -> None:
    away = DataplaneInsightSpec(subscriptions=(Subscription(id="1", connect_time=LONG, disconnect_time=LATELY),))
    found = ask(view(OFF, ALLOW_ALL), MTLS, insights={"web-01": away})
    assert [(one.dataplane, "is not connected" in one.reason) for one in found.laggards] == [("web-01", True)]
    assert [step.step.partition(":")[0] for step in found.steps] == [
        "every inbound learns to accept both plaintext and mutual TLS; callers send plaintext",
        "callers encrypt; inbounds accept both",
        "finishing",
    ]
    assert found.steps[-1].step == "finishing: inbounds accept mutual TLS only"


def test_who_has_not_called_for_long_is_told_apart_and_may_be_taken_for_gone() -> None:
    permissive = view(PERMISSIVE, ALLOW_ALL)
    old = plaintext_call().model_copy(update={"last": NOW - timedelta(days=3)})
    still = ask(permissive, MTLS, calls=[old])
    assert still.strict is not None
    assert still.strict.answer == "no"
    assert still.strict.missing == (
        "1 caller shows no certificate of the mesh and would be cut off: start kuma-dp beside it, or have it stop "
        "calling. It was not seen since 2026-01-07 00:00 UTC: if it is gone for good, preview with those of the last "
        "day only (--within 1d)",
    )
    lately = ask(permissive, MTLS, calls=[old, mesh_call()], within=timedelta(days=1))
    assert lately.strict is not None
    assert (lately.strict.answer, lately.breaks, lately.within_seconds) == ("yes", False, 86400)
    connected = ask(permissive, MTLS, calls=[old, mesh_call()], within=traffic.UNSEEN - timedelta(seconds=1))
    assert connected.strict is not None and connected.strict.answer == "unknown", "it may be connected, unheard of"
    other = ask(permissive, MTLS, calls=[old, plaintext_call("10.1.1.1")], within=timedelta(days=1))
    assert [caller.caller for caller in other.callers] == ["10.1.1.1"]


def test_steps_take_as_long_as_settings_say_and_a_ca_that_ends_before_they_are_done_is_named(
    tmp_path: Path,
) -> None:
    short, long = (cas.root(tmp_path, name, days=days) for name, days in (("short", "1"), ("long", "30")))
    now = x509.load_pem_x509_certificate(short.cert.encode()).not_valid_after_utc - timedelta(seconds=30)
    before = view(MTLS, ALLOW_ALL)

    def asked(ca: cas.Ca, pace: Pace) -> Preview:
        conf = {"cert": {"inlineString": ca.cert}, "key": {"secret": "key"}}
        backend = {"name": "ca-2", "type": "provided", "conf": conf}
        mesh = {"type": "Mesh", "name": "default", "mtls": {"enabledBackend": "ca-2", "backends": [backend]}}
        changes = preview.by_mesh([codec.parse(mesh)], ())["default"]
        return preview.preview(before, changes, Known((), traffic.summary(before, {}, now), {}, now, pace))

    hurried, patient = (Pace(timedelta(seconds=s), timedelta(seconds=1), timedelta(seconds=1)) for s in (5, 60))
    assert {step.at_most_seconds for step in asked(short, hurried).steps} == {5}
    assert asked(short, hurried).endings == ()
    (ending,) = asked(short, patient).endings
    assert (ending.of, ending.ends) == ("the CA ca-2 that comes", now + timedelta(seconds=30))
    assert asked(long, patient).endings == ()


def test_what_scripts_read_of_a_preview_stays_as_it_is() -> None:
    found = ask(view(PERMISSIVE, ALLOW_ALL), MTLS, calls=[plaintext_call()])
    assert found.model_dump(mode="json", by_alias=True) == {
        "mesh": "default",
        "breaks": True,
        "refused": 1,
        "admitted": 0,
        "declaredOnly": 0,
        "callers": [
            {
                "effect": "refused", "service": "backend", "dataplane": "backend-01", "port": 81, "caller": "10.9.9.9",
                "how": "plaintext", "why": "STRICT refuses whoever does not show a certificate of the mesh",
                "seen": True, "dataplanes": [], "address": "10.9.9.9", "last": "2026-01-09T22:00:00Z",
                "connections": 3, "lastDay": 0,
            }
        ],
        "unobserved": [],
        "unobservedTotal": 0,
        "observedSince": "2026-01-01T00:00:00Z",
        "withinSeconds": None,
        "strict": {
            "answer": "no",
            "missing": [
                "1 caller shows no certificate of the mesh and would be cut off: start kuma-dp beside it, or have it "
                "stop calling"
            ],
            "reservation": "",
        },
        "laggards": [],
        "endings": [],
        "steps": [
            {"step": "finishing: inbounds accept mutual TLS only", "likelySeconds": 2.0, "atMostSeconds": 30.0}
        ],
    }  # fmt: skip


async def kumactl(directory: Path, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        BIN / "kumactl", f"--config-file={directory / 'ctl'}", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_the_command_answers_by_its_exit_status_and_offline_as_online(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(PERMISSIVE, ALLOW_ALL)
        await cp.apply_resource(BACKEND)
        await report(cp, cp.token(name="backend-01"), entry("plaintext", port=81))
        port = await cp.api_port()
        (tmp_path / "ctl").write_text(
            f"{{controlPlanes: [{{name: l, coordinates: {{apiServer: {{url: 'http://localhost:{port}'}}}}}}], "
            "contexts: [{name: l, controlPlane: l}], currentContext: l}"
        )
        (tmp_path / "strict.yaml").write_text(MTLS)
        (tmp_path / "same.yaml").write_text(PERMISSIVE)
        status, shown, _ = await kumactl(tmp_path, "preview", "-f", str(tmp_path / "strict.yaml"))
        assert status == 2
        assert "Can it go STRICT? NO" in shown
        assert "10.0.0.9" in shown
        assert (await kumactl(tmp_path, "preview", "-f", str(tmp_path / "same.yaml")))[0] == 0
        assert (await kumactl(tmp_path, "preview", "--delete", "nonsense"))[0] == 1
        for within, expected in (("1d", 2), ("1ms", 0), ("soon", 1)):
            asked = ("preview", "-f", str(tmp_path / "strict.yaml"), "--within", within)
            status, shown, errors = await kumactl(tmp_path, *asked)
            assert status == expected, (within, shown, errors)
        status, answer, _ = await kumactl(tmp_path, "preview", "-f", str(tmp_path / "strict.yaml"), "-o", "json")
        for arguments, expected, words in (
            (("check",), 0, "PERMISSIVE, and 1 plaintext caller in the last hour"),
            (("check", "--strict"), 2, "kumactl inspect traffic --plaintext"),
            (("explain", "call", "web", "backend"), 0, "allowed by allow-all"),
            (("explain", "call", "web", "nobody"), 1, ""),
            (("suggest", "permissions"), 0, ""),
        ):
            status, shown, errors = await kumactl(tmp_path, *arguments)
            assert status == expected, (arguments, shown, errors)
            assert words in shown
        assert "10.0.0.9 calls backend without an identity of the mesh" in errors
        assert "there is nothing to suggest" in errors
        for name, command in (("export", ("export",)), ("recording", ("inspect", "traffic", "-o", "json"))):
            (tmp_path / name).write_text((await kumactl(tmp_path, *command))[1])
    offline = ("--export", str(tmp_path / "export"), "--recording", str(tmp_path / "recording"))
    status, later, errors = await kumactl(
        tmp_path, "preview", "-f", str(tmp_path / "strict.yaml"), "-o", "json", *offline
    )
    assert status == 2, errors
    (there,), (here,) = json.loads(answer)["items"], json.loads(later)["items"]
    assert here["callers"] == there["callers"]
    assert here["strict"]["answer"] == "no"
