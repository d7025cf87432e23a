"""Who belongs to which service follows changes one by one, and touches nothing that they do not concern."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kuma.resources import codec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView, changed_names
from kuma.xds.envoy.services import serving_label
from kuma.xds.envoy.services.service_members import ServiceMembers
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import dataplane, resource
from tests.fakes.examples import examples
from tests.fakes.views import arrived

NAMES = st.sampled_from("abcd")
WEB, DB = ((("kuma.io/service", service),) for service in ("web", "db"))
DATAPLANES = st.dictionaries(
    NAMES,
    st.tuples(st.sampled_from(["web", "shop", "db"]), st.integers(80, 82), st.sets(st.sampled_from(["web", "db"]))),
)


def described(name: str, service: str, port: int, calls: set[str]) -> Resource[Any]:
    return dataplane(name, service, port=port, calls=tuple(sorted(calls)))


def tagged(described: Resource[Any], tags: dict[str, str]) -> Resource[Any]:
    """The same with other tags of its inbound."""
    networking = described.spec.net
    inbounds = tuple(inbound.model_copy(update={"tags": tags}) for inbound in networking.inbound)
    networking = networking.model_copy(update={"inbound": inbounds})
    return replace(described, spec=described.spec.model_copy(update={"networking": networking}))


def plain(found: ServiceMembers) -> object:
    return found.services, {service: names for service, names in found.callers.items() if names}


@examples(300)
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


GATEWAY = resource(
    "{type: Dataplane, mesh: default, name: edge, networking: {address: 10.0.0.2, "
    "gateway: {type: DELEGATED, tags: {kuma.io/service: web}}}}"
)


def test_who_shows_a_service_beside_which_another_one_is_shown_now_is_found_whether_it_serves_it_or_not() -> None:
    """A withheld inbound and a gateway are no members of a service, and have its identity all the same."""
    all_of_them = [dataplane("web-1", "web"), dataplane("web-2", "web", port=81), dataplane("db-1", "db"), GATEWAY]
    now = {one.name: one for one in all_of_them}
    withheld = {"web-2": {0: "it leads elsewhere"}}
    before = ServiceMembers().following(now, withheld)
    both = codec.parse({
        "type": "Dataplane", "mesh": "default", "name": "both",
        "networking": {
            "address": "10.0.0.3",
            "inbound": [
                {"port": port, "servicePort": 8080, "tags": {"kuma.io/service": service}}
                for port, service in ((80, "shop"), (81, "web"))
            ],
        },
    })  # fmt: skip
    after = before.following({**now, "both": both}, withheld)
    assert after.accompanied(before) == {"web-1", "web-2", "edge", "both"}
    assert before.accompanied(after) == {"web-1", "web-2", "edge"}
    assert after.accompanied(after) == frozenset()


def test_services_that_a_change_does_not_concern_are_the_very_same_objects() -> None:
    view = MeshView("default")
    for name, service in (("web-1", "web"), ("web-2", "web"), ("db-1", "db")):
        view = view.having(dataplane(name, service, calls=("web", "db")))
    before = MeshConfig(arrived(view))
    for name in view.dataplanes:
        before.snapshot(name, {})
    after = MeshConfig(arrived(view.having(dataplane("web-3", "web"))), before)
    assert after._service_members.services["db"] is before._service_members.services["db"]
    assert after._services.of(DB) is before._services.of(DB)
    assert after._services.of(WEB) is not before._services.of(WEB)
    assert after.affected_since(before) == {"web-1", "web-2", "db-1", "web-3"}
    again = MeshConfig(arrived(view.having(dataplane("db-1", "db", port=81, calls=("web",)))), before)
    assert again.affected_since(before) == {"web-1", "web-2", "db-1"}


def test_who_comes_and_is_not_ready_yet_concerns_its_callers_once_it_is() -> None:
    """Thousands that come one after the other would otherwise have all their callers looked at thousands of times."""
    view = MeshView("default").having(dataplane("web-1", "web")).having(dataplane("db-1", "db", calls=("web",)))
    before = MeshConfig(arrived(view))
    before.snapshot("db-1", {})
    waiting = serving_label.as_not_serving(dataplane("web-2", "web", port=81))
    coming = MeshConfig(arrived(view.having(waiting)), before)
    assert coming.affected_since(before) == {"web-2"}
    assert coming.snapshot("db-1", {}) == before.snapshot("db-1", {}) == MeshConfig(coming.view).snapshot("db-1", {})
    ready = MeshConfig(arrived(view.having(serving_label.as_serving(waiting))), coming)
    assert ready.affected_since(coming) == {"web-2", "db-1"}
    assert ready.snapshot("db-1", {}) == MeshConfig(ready.view).snapshot("db-1", {}) != before.snapshot("db-1", {})


def test_who_comes_with_another_protocol_concerns_its_callers_at_once() -> None:
    view = MeshView("default").having(dataplane("web-1", "web")).having(dataplane("db-1", "db", calls=("web",)))
    before = MeshConfig(arrived(view))
    before.snapshot("db-1", {})
    other = serving_label.as_not_serving(tagged(dataplane("web-2", "web"), {"kuma.io/service": "web"}))
    after = MeshConfig(arrived(view.having(other)), before)
    assert after.affected_since(before) == {"web-2", "db-1"}
    assert after.snapshot("db-1", {}) == MeshConfig(after.view).snapshot("db-1", {}) != before.snapshot("db-1", {})


LABELLED = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(
        st.sampled_from(["web", "db"]),
        st.sets(st.sampled_from(["web", "db"])),
        st.booleans(),
        st.sampled_from([{"kuma.io/protocol": "http"}, {"version": "v1"}, {}]),
    ),
)


@examples(150)
@given(st.lists(LABELLED, min_size=2, max_size=5), st.sets(st.sampled_from("abcd")))
def test_whoever_is_not_affected_gets_what_it_had(steps: list[dict[str, Any]], connected: set[str]) -> None:
    """Whatever happened, and whoever has been served meanwhile: also what nobody has asked for before is made anew."""
    made, before = MeshConfig(MeshView("default")), dict[str, Resource[Any]]()
    for step in steps:
        view, now = MeshView("default"), dict[str, Resource[Any]]()
        for name, (service, calls, serves, tags) in step.items():
            found = dataplane(name, service, port=ord(name), calls=tuple(sorted(calls)))
            found = tagged(found, {"kuma.io/service": service, **tags})
            found = (serving_label.as_serving if serves else serving_label.as_not_serving)(found)
            now[name] = before[name] if before.get(name) == found else found
            view = view.having(now[name])
        after = MeshConfig(view, made)
        affected = after.affected_since(made)
        for name in now.keys() & connected:
            anew = MeshConfig(view).snapshot(name, {})
            assert name in affected or anew == made.snapshot(name, {})
            assert after.snapshot(name, {}) == anew
        made, before = after, now


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
    assert [dict(beside) for _, beside in after.admissions.callers_of("db").values()] == [{"web": frozenset({"shop"})}]
    gone = MeshConfig(arrived(view), after)
    assert "db-1" in gone.affected_since(after)
    assert gone.admissions.callers_of("db") == before.admissions.callers_of("db")
