"""How `kumactl inspect meshes` tells of proxies that are away and may go on."""

from __future__ import annotations

from datetime import UTC, datetime

from kuma.kumactl.display import mesh_tables, times

NOW = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)


def transition(count: int) -> dict[str, object]:
    proxy = {"since": "2026-01-01T00:00:00Z", "mayServeUntil": "2026-01-31T00:00:00Z", "admits": ["web:80: nobody"]}
    away = [{**proxy, "name": f"web-{number}"} for number in range(count)]
    return {"step": "complete", "complete": True, "followers": 9, "acknowledged": 9, "outOfContact": away}


def test_they_are_named_with_until_when_and_whom_they_admit() -> None:
    header, line = mesh_tables.meshes([{"name": "default"}], {"default": transition(1)}, {}, NOW).splitlines()
    cell = line[header.index("OUT OF CONTACT") : header.index("CA EXPIRATION")].strip()
    assert cell == f"web-0 (5s, until {times.date('2026-01-31T00:00:00Z')}, admits web:80: nobody)"
    assert "and 2 more" in mesh_tables.meshes([{"name": "default"}], {"default": transition(7)}, {}, NOW)


def test_whom_one_admits_may_not_be_known() -> None:
    unknown = transition(1)
    unknown["outOfContact"][0].pop("admits")  # type: ignore[index]
    assert "admits not known" in mesh_tables.meshes([{"name": "default"}], {"default": unknown}, {}, NOW)


def test_a_change_that_is_followed_names_them() -> None:
    assert mesh_tables.progress(transition(2)) == "complete; out of contact web-0, web-1"
