"""The permission matcher against a slow and obvious model, written from the rules."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kuma.policy import permissions
from kuma.policy.permissions import Permission
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.resources.traffic_permission import Selector, TrafficPermissionSpec

TAGS = st.dictionaries(st.sampled_from(["kuma.io/service", "version", "env"]), st.sampled_from("ab"), min_size=1)
MATCHES = st.dictionaries(
    st.sampled_from(["kuma.io/service", "version", "env"]), st.sampled_from(["a", "b", "*"]), min_size=1
)
START = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def some_permissions(draw: st.DrawFn) -> list[Permission]:
    names = draw(st.lists(st.sampled_from("pqrstu"), unique=True))
    return [
        Resource(
            kinds.TRAFFIC_PERMISSION.key(name, "default"),
            TrafficPermissionSpec(
                sources=tuple(Selector(match=m) for m in draw(st.lists(MATCHES, min_size=1, max_size=2))),
                destinations=tuple(Selector(match=m) for m in draw(st.lists(MATCHES, min_size=1, max_size=3))),
            ),
            creation_time=START + timedelta(hours=draw(st.integers(0, 2))),
        )
        for name in names
    ]


def winner(candidates: list[Permission], tags: dict[str, str]) -> str:
    """Most tags in the destination, then most exact values, then the latest, then the first by name."""
    best = ""
    best_order: tuple[int, int, datetime] | None = None
    for permission in sorted(candidates, key=lambda p: p.name):
        for destination in permission.spec.destinations:
            if all(k in tags and v in ("*", tags[k]) for k, v in destination.match.items()):
                exact = len([v for v in destination.match.values() if v != "*"])
                order = (len(destination.match), exact, permission.creation_time)
                if best_order is None or order > best_order:
                    best, best_order = permission.name, order
    return best


@settings(max_examples=500)
@given(some_permissions(), TAGS)
def test_the_winner_is_the_models(candidates: list[Permission], tags: dict[str, str]) -> None:
    assert permissions.admission(candidates, [], tags).permission == winner(candidates, tags)
