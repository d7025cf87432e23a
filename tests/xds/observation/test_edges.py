"""Counters of callers: bounded for each proxy, and the same whether they were counted together or apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.xds.observation.edges import KEPT_FOR, KNOWN, CallerEdge, Edges, together

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def caller(name: str, how: Literal["meshTls", "plaintext"] = "meshTls") -> CallerEdge:
    uris = (f"spiffe://default/{name}",) if how == "meshTls" else ()
    return CallerEdge("backend", 80, how, "allowed", uris, "" if uris else name)


def counted(*seen: tuple[str, float, int]) -> Edges:
    """Callers by their names, hours ago, with the number of connections."""
    edges = Edges(NOW - timedelta(days=1))
    for name, ago, connections in seen:
        edges.note(caller(name), NOW - timedelta(hours=ago), connections)
    return edges


def test_connections_are_counted_by_the_hour_with_the_first_and_the_last_time() -> None:
    (edge,) = counted(("web", 2, 1), ("web", 1, 3), ("web", 0, 0)).spec(NOW).edges
    assert (edge.first, edge.last, edge.connections) == (NOW - timedelta(hours=2), NOW, 4)
    assert edge.hours == (0, 3, 1)
    assert [edge.since(NOW - timedelta(hours=hours)) for hours in (0, 1, 24)] == [0, 3, 4]


def test_who_calls_from_many_addresses_hides_nobody_with_an_identity() -> None:
    edges = counted(("web", 1, 1))
    for number in range(KNOWN[False] + 100):
        edges.note(caller(f"10.0.{number // 250}.{number % 250}", "plaintext"), NOW, 1)
    spec = edges.spec(NOW)
    assert len(spec.edges) == KNOWN[False] + 1
    assert spec.forgotten == 100
    assert any(edge.uris for edge in spec.edges)
    assert edges.spec(NOW).edges[-1].address == "10.0.0.227", "those who have called last are known"


def test_who_has_not_called_for_very_long_is_forgotten() -> None:
    assert not counted(("web", 1, 1)).spec(NOW + KEPT_FOR).edges


SEEN = st.lists(
    st.tuples(st.sampled_from(["web", "api"]), st.integers(0, 30).map(float), st.integers(0, 3)), max_size=8
)


@given(mine=SEEN, others=SEEN)
def test_it_does_not_matter_who_has_counted_what(
    mine: list[tuple[str, float, int]], others: list[tuple[str, float, int]]
) -> None:
    apart = together([counted(*mine).spec(NOW), counted(*others).spec(NOW)], NOW)
    whole = counted(*mine, *others).spec(NOW)

    def known(spec: ObservedTrafficSpec) -> object:
        return {(e.uris, e.first, e.last, e.connections, e.since(NOW - timedelta(hours=20))) for e in spec.edges}

    assert known(apart) == known(whole)
