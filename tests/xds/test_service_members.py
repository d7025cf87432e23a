"""Who belongs to which service follows changes one by one, and touches nothing that they do not concern."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kuma.resources.resource import Resource
from kuma.resources.view import MeshView, changed_names
from kuma.xds.envoy.service_members import ServiceMembers
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import dataplane
from tests.fakes.views import arrived

NAMES = st.sampled_from("abcd")
DATAPLANES = st.dictionaries(
    NAMES,
    st.tuples(st.sampled_from(["web", "shop", "db"]), st.integers(80, 82), st.sets(st.sampled_from(["web", "db"]))),
)


def described(name: str, service: str, port: int, calls: set[str]) -> Resource[Any]:
    return dataplane(name, service, port=port, calls=tuple(sorted(calls)))


def plain(found: ServiceMembers) -> object:
    return found.services, {service: names for service, names in found.callers.items() if names}


@settings(max_examples=300, deadline=None)
@given(st.lists(DATAPLANES, min_size=1, max_size=4))
def test_what_follows_step_by_step_is_what_follows_at_once(steps: list[dict[str, Any]]) -> None:
    found, before = ServiceMembers(), dict[str, Resource[Any]]()
    for step in steps:
        now = {name: described(name, *said) for name, said in step.items()}
        now = {name: before[name] if before.get(name) == made else made for name, made in now.items()}
        assert changed_names(before, now) == {n for n in {*before, *now} if before.get(n) is not now.get(n)}
        previous, found = found, found.following(now)
        assert plain(found) == plain(ServiceMembers().following(now))
        moved = found.moved(previous, changed_names(before, now))
        for service in {*previous.services, *found.services} - moved:
            assert found.services[service] == previous.services[service]
        before = now


def test_services_that_a_change_does_not_concern_are_the_very_same_objects() -> None:
    view = MeshView("default")
    for name, service in (("web-1", "web"), ("web-2", "web"), ("db-1", "db")):
        view = view.having(dataplane(name, service, calls=("web", "db")))
    before = MeshConfig(arrived(view))
    for name in view.dataplanes:
        before.snapshot(name, {})
    after = MeshConfig(arrived(view.having(dataplane("web-3", "web"))), before)
    assert after._service_members.services["db"] is before._service_members.services["db"]
    assert after._services["db"] is before._services["db"]
    assert "web" not in after._services
    assert after.affected_since(before) == {"web-1", "web-2", "db-1", "web-3"}
    again = MeshConfig(arrived(view.having(dataplane("db-1", "db", port=81, calls=("web",)))), before)
    assert again.affected_since(before) == {"web-1", "web-2", "db-1"}


def test_services_beside_a_caller_s_own_reach_the_inbounds_that_it_calls() -> None:
    """Whoever shows several services is judged by all of them, in whichever group; so inbounds follow who has which."""
    view = MeshView("default").having(dataplane("web-1", "web", calls=("db",))).having(dataplane("db-1", "db"))
    before = MeshConfig(arrived(view))
    both = dataplane("both", "web")
    tags = {"kuma.io/service": "shop"}
    inbound = both.spec.net.inbound[0]
    other = inbound.model_copy(update={"port": inbound.port + 1, "tags": tags})
    networking = both.spec.net.model_copy(update={"inbound": (inbound, other)})
    both = replace(both, spec=both.spec.model_copy(update={"networking": networking}))
    after = MeshConfig(arrived(view.having(both)), before)
    assert "db-1" in after.affected_since(before)
    assert [dict(beside) for _, beside in after._callers_of("db").values()] == [{"web": frozenset({"shop"})}]
    gone = MeshConfig(arrived(view), after)
    assert "db-1" in gone.affected_since(after)
    assert gone._callers_of("db") == before._callers_of("db")
