"""What Envoy says that it has decided is taken for what has become of a caller, before what the rules say now."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuma.resources.models.mesh_transition import Level
from kuma.resources.view import MeshView
from kuma.xds.envoy.listeners import reports
from kuma.xds.envoy.snapshot import MeshConfig
from kuma.xds.observation.decisions import Decisions, decided
from kuma.xds.observation.entries import Reporter
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource
from tests.fakes.reports import entry
from tests.fakes.views import arrived

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BACKEND = dataplane("backend-01", "backend", port=80)
WEB = "spiffe://default/web"


def said(shadow: str = "-", ended: str = "-", request: object = None, **more: Any) -> Any:
    """An entry of a caller, with what Envoy writes about its decisions."""
    found = entry("mesh_tls", WEB, **more)
    http = json.dumps(request) if request is not None else "-"
    found.common_properties.custom_tags[reports.DECIDED] = "\n".join((shadow, ended, http))
    return found


def request(enforced: str, shadow: str = "allowed") -> dict[str, str]:
    return {"enforced_engine_result": enforced, "shadow_engine_result": shadow, "shadow_effective_policy_id": "a\nb"}


def reporter(
    permission: str = ALLOW_ALL, *, now: datetime = NOW, ruled_for: timedelta = timedelta(days=1), known: Any = None
) -> Reporter:
    found = arrived(MeshView("default").following({r.key: r for r in (BACKEND, resource(MTLS), resource(permission))}))
    config = MeshConfig(found)
    return Reporter(BACKEND, Level.STRICT, config.permissions, now - ruled_for, known or Decisions(), now)


@pytest.mark.parametrize(
    ("written", "outcome"),
    [
        (said(request=request("denied")), "refused"),
        (said(request=request("allowed")), "allowed"),
        (said(request=request("allowed", "denied")), "wouldBeRefused"),
        (said(ended="rbac_access_denied_matched_policy[none]"), "refused"),
        (said(shadow="denied", ended="something else"), "wouldBeRefused"),
        (said(), None),
        (said(request=["denied"]), None),
        (said(request={"shadow_engine_result": "allowed"}), None),
        (entry("mesh_tls", WEB), None),
    ],
)
def test_decisions_are_read_from_entries(written: Any, outcome: str | None) -> None:
    assert decided(written.common_properties) == outcome


def test_who_is_led_nowhere_is_refused() -> None:
    written = said()
    written.common_properties.response_flags.no_cluster_found = True
    assert decided(written.common_properties) == "refused"


def test_what_no_parser_takes_is_no_decision() -> None:
    deep = entry("mesh_tls", WEB)
    deep.common_properties.custom_tags[reports.DECIDED] = "-\n-\n" + "[" * 100_000
    assert decided(deep.common_properties) is None


def outcome(reported: Reporter, written: Any) -> str | None:
    found = reported.connections(written)
    return found[0].outcome if found else None


def test_envoys_word_comes_before_what_the_rules_say_and_holds_for_the_connection() -> None:
    known = Decisions()
    assert outcome(reporter(known=known), said(request=request("denied"))) == "refused"
    later = NOW + timedelta(minutes=1)
    lasted = {"duration": timedelta(minutes=2)}
    assert outcome(reporter(known=known, now=later), ended(**lasted)) == "refused"
    assert outcome(reporter(known=known, now=later), ended(duration=timedelta(seconds=1))) == "allowed", "a new one"


def test_who_was_connected_before_a_permission_was_lost_is_not_said_to_be_refused() -> None:
    nobody = ALLOW_ALL.replace("'*'", "other", 1)
    assert outcome(reporter(nobody, ruled_for=timedelta(minutes=1)), ended(duration=timedelta(hours=1))) is None
    assert outcome(reporter(nobody, ruled_for=timedelta(hours=2)), ended(duration=timedelta(hours=1))) == "refused"
    assert outcome(reporter(nobody, ruled_for=timedelta(minutes=1)), said(request=request("denied"))) == "refused"


def ended(duration: timedelta) -> Any:
    found = said()
    found.common_properties.duration.FromTimedelta(duration)
    return found


def test_a_duration_that_none_can_have_is_none() -> None:
    written = said()
    written.common_properties.duration.seconds = 1 << 60
    assert outcome(reporter(), written) == "allowed"


def test_decisions_are_remembered_of_those_who_were_decided_about_last() -> None:
    known = Decisions()
    for number in range(2000):
        known.note(("backend", number, ()), "refused", NOW)
    assert known.since(("backend", 0, ()), NOW) is None
    assert known.since(("backend", 1999, ()), NOW) == "refused"
