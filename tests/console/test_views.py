"""What pages show, from what is known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kuma.console import record
from kuma.console.views import audit, calls, lists, timeline, times
from kuma.console.views.calls import Calls, Rules
from kuma.console.views.course import course
from kuma.foresight import traffic
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Awaited, BackendStatus, Level, MeshTransitionSpec, Position
from kuma.resources.models.observed_traffic import Edge, ObservedTrafficSpec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from tests.fakes.control_plane import MTLS, dataplane, resource

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
WEB_TO_BACKEND = (
    "{type: TrafficPermission, mesh: default, name: p, sources: [{match: {kuma.io/service: web}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)


def view(*texts: str, transition: MeshTransitionSpec | None = None) -> MeshView:
    found = MeshView("default")
    for text in texts:
        found = found.having(resource(text))
    for one in (dataplane("web-01", "web"), dataplane("backend-01", "backend", 81), dataplane("shop-01", "shop", 82)):
        found = found.having(one)
    if transition is not None:
        found = found.having(Resource(kinds.MESH_TRANSITION.key("default", "default"), transition))
    return found


def stages(spec: MeshTransitionSpec, mesh: str = MTLS) -> list[tuple[str, str]]:
    return [(stage.name, stage.state) for stage in course(view(mesh, transition=spec), NOW).stages]


def test_a_change_of_level_shows_the_levels_on_its_way() -> None:
    spec = MeshTransitionSpec(
        position=Position(level=Level.ACCEPTING),
        step="every inbound learns",
        origin="off",
        goal="STRICT with builtin/ca-1",
    )
    expected = [("plaintext", "done"), ("accepting", "now"), ("encrypting", "to come"), ("strict", "to come")]
    assert stages(spec) == expected
    assert stages(spec, "{type: Mesh, name: default}") == [
        ("strict", "done"),
        ("encrypting", "done"),
        ("accepting", "now"),
        ("plaintext", "to come"),
    ]


@pytest.mark.parametrize(
    ("step", "index"), [("preparing: x", 0), ("activating: x", 1), ("draining: x", 2), ("finishing", 3)]
)
def test_a_change_of_authority_shows_its_stages(step: str, index: int) -> None:
    origin, goal = "STRICT with builtin/ca-1", "STRICT with builtin/ca-2"
    spec = MeshTransitionSpec(position=Position(level=Level.STRICT), step=step, origin=origin, goal=goal)
    states = ["done"] * index + ["now"] + ["to come"] * (3 - index)
    assert stages(spec) == list(zip(("prepare", "activate", "drain", "retire"), states, strict=True))


def test_finishing_a_change_of_level_is_none_of_authority() -> None:
    origin, goal = "PERMISSIVE with builtin/ca-1", "STRICT with builtin/ca-1"
    spec = MeshTransitionSpec(position=Position(level=Level.STRICT), step="finishing", origin=origin, goal=goal)
    assert stages(spec)[-1] == ("strict", "now")


def test_who_is_waited_for_is_named_with_since_when() -> None:
    waiting = [Awaited(name=f"dp-{i:02}", since=NOW - timedelta(seconds=90), absent=i == 0) for i in range(25)]
    found = course(view(MTLS, transition=MeshTransitionSpec(step="x", waiting_for=tuple(waiting))), NOW)
    assert found.waiting[0] == "dp-00 for 90 seconds, not connected"
    assert found.waiting[-1] == "and 5 more" and len(found.waiting) == 21


def test_authorities_are_placed_by_their_times_and_those_near_their_end_are_marked() -> None:
    backends = (
        BackendStatus(name="ca-1", not_after=NOW + timedelta(days=100)),
        BackendStatus(name="ca-2", not_after=NOW + timedelta(days=10)),
        BackendStatus(name="ca-3", problem="it is not there"),
    )
    found = timeline.authorities(view(MTLS, transition=MeshTransitionSpec(backends=backends)), NOW)
    assert [(one.name, one.role, one.is_near_end, one.problem) for one in found] == [
        ("ca-1", "issues", False, ""),
        ("ca-2", "trusted", True, ""),
        ("ca-3", "trusted", False, "it is not there"),
    ]
    line = timeline.timeline(found, NOW)
    assert line is not None and [bar.width for bar in line.bars] == [1000, 100]
    assert timeline.timeline((), NOW) is None


def edge(how: str, outcome: str, caller: str = "", address: str = "") -> Edge:
    uris = (f"spiffe://default/{caller}",) if caller else ()
    return Edge.model_validate(
        {"service": "backend", "port": 81, "how": how, "outcome": outcome, "first": NOW, "last": NOW, "uris": uris,
         "address": address, "connections": 3, "hours": (3,)}
    )  # fmt: skip


def related(mesh: str, *edges: Edge) -> Calls:
    found = view(mesh, WEB_TO_BACKEND)
    seen = traffic.callers(found, {"backend-01": ObservedTrafficSpec(since=NOW, edges=edges)}, NOW)
    return Calls.of(found, Rules.of(found), seen)


def test_services_are_related_by_what_is_permitted_and_what_was_seen() -> None:
    found = related(PERMISSIVE, edge("meshTls", "allowed", "web"), edge("meshTls", "refused", "shop"))
    states = {(a, b): found.relation(a, b).state for a in ("web", "shop", "backend") for b in ("web", "backend")}
    assert states == {
        ("web", "backend"): "used",
        ("shop", "backend"): "tried",
        ("backend", "backend"): "refused",
        **{(caller, "web"): "refused" for caller in ("web", "shop", "backend")},
    }
    assert (found.relation("web", "backend").connections, found.relation("web", "backend").last) == (3, NOW)
    assert related(PERMISSIVE).relation("web", "backend").state == "allowed"


def test_who_would_break_under_strict_is_told_by_name() -> None:
    plaintext = edge("plaintext", "allowed", address="10.9.9.9")
    found = related(PERMISSIVE, plaintext, edge("meshTls", "wouldBeRefused", "web"))
    assert found.breaking == {("plaintext from 10.9.9.9", "backend"), ("web", "backend")}
    assert found.relation("plaintext from 10.9.9.9", "backend").state == "breaks"
    incoming, outgoing = found.of_service("backend")
    assert [one.caller for one in incoming] == ["plaintext from 10.9.9.9", "web"] and not outgoing
    assert not related(MTLS, edge("plaintext", "refused", address="10.9.9.9")).breaking


def test_the_picture_draws_each_pair_once() -> None:
    found = related(PERMISSIVE, edge("meshTls", "refused", "shop"))
    drawn = dict(calls.picture(found, found.callers, found.called))
    assert drawn == {"tried": "M0 4h4v4h-4z", "allowed": "M0 8h4v4h-4z"}


def test_the_audit_record_is_searched_by_words_and_torn_lines_are_passed_over() -> None:
    lines = [
        b'{"time": "2", "event": "resource created", "actor": "john", "name": "<b>", "more": ["x"]}',
        b'{"time": "1", "ev',
        b"[]",
        b'{"time": "0", "event": "token issued", "actor": "jane"}',
    ]
    assert [event.time for event in audit.events(lines, "", 100)] == ["2", "0"]
    (found,) = audit.events(lines, "JOHN created", 100)
    assert found.more == (("name", "<b>"), ("more", '["x"]'))


def test_pages_of_lists_begin_and_end_where_the_list_does() -> None:
    assert lists.page(range(101), 3).items == range(100, 101)
    assert lists.page(range(101), 99).page == 3 == lists.page(range(101), 3).pages
    assert lists.page((), 0) == ((), 0, 1, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds ago"),
        (-1, "1 second ago"),
        (-119, "119 seconds ago"),
        (7200, "in 2 hours"),
        (-3 * 86400, "3 days ago"),
    ],
)
def test_times_are_told_in_their_greatest_unit(seconds: int, text: str) -> None:
    assert times.distance(NOW + timedelta(seconds=seconds), NOW) == text
    assert times.distance(None, NOW) == "never"


def test_the_newest_events_are_read_first_however_long_the_record_is(tmp_path: Path) -> None:
    written = tmp_path / "audit.jsonl"
    assert list(record.backwards(written)) == []
    lines = [f'{{"time": "{index}", "more": "{"ü" * 97}"}}' for index in range(2000)]
    written.write_text("\n".join([*lines, ""]))
    assert [line.decode() for line in record.backwards(written) if line] == list(reversed(lines))


def test_of_a_huge_line_in_the_record_nothing_is_kept_and_the_others_are_shown(tmp_path: Path) -> None:
    written, first, last = tmp_path / "audit.jsonl", b'{"event": "first"}', b'{"event": "last"}'
    for size in (record.LONGEST, record.LONGEST + 1, 20 * record.LONGEST + 7):
        for lines in ([first, b"x" * size, last], [b"x" * size, last], [first, b"x" * size]):
            written.write_bytes(b"\n".join(lines) + b"\n")
            expected = [line if len(line) <= record.LONGEST else None for line in reversed(lines)]
            assert list(record.backwards(written)) == expected
    found = list(audit.events(record.backwards(written), "", record.LONGEST))
    assert [event.event for event in found] == ["not shown: a line of more than 65,536 bytes", "first"]
    assert [event.event for event in audit.events(record.backwards(written), "first", record.LONGEST)] == ["first"]
    written.write_bytes(first + b"\n" + b"[" * 60_000 + b"\n")
    assert [event.event for event in audit.events(record.backwards(written), "", record.LONGEST)] == ["first"]
