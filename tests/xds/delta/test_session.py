"""Conversations with a proxy, told as requests and what is sent in answer."""

from __future__ import annotations

from collections.abc import Mapping

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import wrappers_pb2

from kuma.xds.delta.session import Confirmation, Request, Response, Session
from kuma.xds.envoy import resource
from kuma.xds.envoy.resource import Entry, TypeUrl

CDS, EDS, SDS, LDS = TypeUrl.CLUSTER, TypeUrl.ENDPOINTS, TypeUrl.SECRET, TypeUrl.LISTENER


def entries(**contents: str) -> Mapping[str, Entry]:
    return {name: Entry.of(name, wrappers_pb2.StringValue(value=text)) for name, text in contents.items()}


def sent(session: Session) -> list[tuple[TypeUrl, list[str], list[str]]]:
    return [(r.type_url, [e.name for e in r.entries], list(r.removed)) for r in session.responses()]


def ack(session: Session, response: Response, error: str | None = None) -> Confirmation | None:
    return session.receive(Request(response.type_url, nonce=response.nonce, error=error))


def connected(snapshot: Mapping[TypeUrl, Mapping[str, Entry]]) -> Session:
    """A session whose proxy has taken everything of `snapshot`."""
    session = Session()
    session.publish(snapshot)
    session.receive(Request(CDS))
    for type_url in (EDS, SDS):
        if snapshot.get(type_url):
            session.receive(Request(type_url, subscribe=tuple(snapshot[type_url])))
    session.receive(Request(LDS))
    for _ in range(3):
        for response in list(session.responses()):
            ack(session, response)
    assert session.converged
    return session


def test_an_updated_cluster_gets_its_endpoints_again() -> None:
    session = connected({CDS: entries(db="1", web="1"), EDS: entries(db="1", web="1"), LDS: entries(out="1")})
    session.publish({CDS: entries(db="2", web="1"), EDS: entries(db="1", web="1"), LDS: entries(out="2")})
    clusters, endpoints = session.responses()
    ack(session, clusters)
    assert (endpoints.type_url, [e.name for e in endpoints.entries]) == (EDS, ["db"])
    assert not session.converged
    ack(session, endpoints)
    assert sent(session) == [(LDS, ["out"], [])]


def test_clusters_then_endpoints_then_listeners() -> None:
    session = Session()
    session.publish({CDS: entries(db="1"), EDS: entries(db="1"), LDS: entries(out="1")})
    session.receive(Request(CDS))
    session.receive(Request(LDS))
    [clusters] = session.responses()
    assert clusters.type_url is CDS
    ack(session, clusters)
    assert sent(session) == [], "the endpoints are not asked for yet, so the listener waits"
    session.receive(Request(EDS, subscribe=("db",)))
    [endpoints] = session.responses()
    assert endpoints.type_url is EDS
    ack(session, endpoints)
    assert sent(session) == [(LDS, ["out"], [])]


def test_only_what_changed_is_sent() -> None:
    session = connected({CDS: entries(a="1", b="1")})
    session.publish({CDS: entries(a="1", b="2")})
    assert sent(session) == [(CDS, ["b"], [])]
    assert sent(session) == [], "and only once"


def test_a_cluster_goes_after_the_listener_that_routes_to_it() -> None:
    session = connected({CDS: entries(a="1"), LDS: entries(out="to a")})
    session.publish({CDS: {}, LDS: entries(out="to nobody")})
    [listener] = session.responses()
    assert listener.type_url is LDS
    ack(session, listener)
    assert sent(session) == [(CDS, [], ["a"])]


def test_a_rejected_version_is_not_resent_until_the_content_changes() -> None:
    session = connected({LDS: entries(web="1")})
    session.publish({LDS: entries(web="bad")})
    [response] = session.responses()
    assert ack(session, response, error="address in use") == Confirmation(LDS, "address in use")
    assert sent(session) == []
    assert not session.converged
    assert session.acked(LDS) == {"web": entries(web="1")["web"].version}
    session.publish({LDS: entries(web="good")})
    assert sent(session) == [(LDS, ["web"], [])]


def test_of_a_rejected_response_only_the_bad_resource_is_rejected() -> None:
    """Envoy runs the other ones: they count as run, whatever else came with them."""
    old, new = entries(a="1", b="1", c="1", d="1", e="1"), entries(a="2", b="2", bad="1", c="1", d="2", e="2")
    session = connected({LDS: old})
    session.publish({LDS: new})
    rounds = []
    while responses := list(session.responses()):
        for response in responses:
            names = [e.name for e in response.entries]
            rounds.append(names)
            assert not session.answered
            ack(session, response, error="port taken" if "bad" in names else None)
    assert rounds == [["a", "b", "bad", "d", "e"], ["a", "b"], ["bad", "d", "e"], ["bad"], ["d", "e"]]
    assert session.acked(LDS) == {name: entry.version for name, entry in new.items() if name != "bad"}
    assert session.answered
    assert session.rejects(LDS)
    session.publish({LDS: {**new, **entries(bad="good")}})
    assert sent(session) == [(LDS, ["bad"], [])]


def test_a_part_in_doubt_that_is_wanted_no_more_is_not_sent() -> None:
    session = connected({LDS: entries(a="1", b="1")})
    session.publish({LDS: entries(a="2", b="2")})
    [response] = session.responses()
    ack(session, response, error="port taken")
    session.publish({LDS: entries(b="3")})
    [response] = session.responses()
    assert ([e.name for e in response.entries], response.removed) == (["b"], ("a",))
    ack(session, response)
    assert sent(session) == []
    assert session.converged
    assert not session.rejects(LDS)


def test_a_rejection_is_over_when_what_was_rejected_is_wanted_no_more() -> None:
    session = connected({LDS: entries(a="1", b="1")})
    session.publish({LDS: entries(a="bad", b="1")})
    [response] = session.responses()
    ack(session, response, error="port taken")
    session.publish({LDS: entries(a="bad", b="2")})
    [response] = session.responses()
    ack(session, response)
    assert session.rejects(LDS), "the other listener is still not what it should be"
    session.publish({LDS: entries(b="2")})
    [response] = session.responses()
    ack(session, response)
    assert not session.rejects(LDS)


def test_a_rejection_is_over_before_anything_is_sent_in_its_place() -> None:
    """A listener may have to wait for its clusters, or a proxy may owe answers."""
    session = connected({CDS: entries(a="1"), LDS: entries(web="1")})
    session.publish({CDS: entries(a="1"), LDS: entries(web="bad")})
    [response] = session.responses()
    ack(session, response, error="port taken")
    assert session.rejects(LDS)
    session.publish({CDS: entries(a="1"), LDS: entries(web="good")})
    assert not session.rejects(LDS)
    session.publish({CDS: entries(a="1"), LDS: {}})
    assert not session.rejects(LDS)
    session.publish({CDS: entries(a="1"), LDS: entries(web="bad")})
    assert session.rejects(LDS)


def test_what_only_a_rejected_resource_refers_to_is_not_waited_for() -> None:
    """Envoy does not ask for the routes of a listener, or the endpoints of a cluster, that it has rejected."""
    session = Session()
    routes = {TypeUrl.ROUTES: entries(bad="1", good="1")}
    session.publish({CDS: entries(db="1"), EDS: entries(db="1"), LDS: entries(bad="1", good="1"), **routes})
    session.receive(Request(CDS))
    session.receive(Request(LDS))
    while responses := list(session.responses()):
        for response in responses:
            ack(session, response, error="bad" if {e.name for e in response.entries} & {"db", "bad"} else None)
    assert not session.answered, "the routes of the good listener will be asked for"
    session.receive(Request(TypeUrl.ROUTES, subscribe=("good",)))
    [response] = session.responses()
    assert not session.answered
    ack(session, response)
    assert session.answered
    assert not session.converged


def test_what_is_left_of_a_rejected_response_is_not_blamed_alone() -> None:
    """The other part may be what was bad, even if a later response has overtaken it."""
    session = connected({LDS: entries(a="1", b="1")})
    session.publish({LDS: entries(a="bad", b="2")})
    [first] = session.responses()
    session.publish({LDS: entries(a="2", b="2")})
    [second] = session.responses()
    assert [e.name for e in second.entries] == ["a"]
    ack(session, first, error="port taken")
    ack(session, second)
    [third] = session.responses()
    assert [e.name for e in third.entries] == ["b"]
    ack(session, third)
    assert session.converged
    assert not session.rejects(LDS)


def test_a_proxy_that_may_run_something_newer_has_not_what_it_acknowledged_before() -> None:
    old = entries(a="1", b="1")
    session = connected({LDS: old})
    session.publish({LDS: entries(a="2", b="bad")})
    [response] = session.responses()
    ack(session, response, error="port taken")
    session.publish({LDS: old})
    assert not session.converged
    assert not session.answered
    while responses := list(session.responses()):
        for response in responses:
            ack(session, response)
    assert session.converged


def test_a_secret_in_doubt_that_comes_again_is_sent() -> None:
    session = Session()
    session.publish({SDS: entries(good="1", bad="1")})
    session.receive(Request(SDS, subscribe=("good", "bad")))
    [response] = session.responses()
    ack(session, response, error="bad")
    session.publish({SDS: {}})
    assert sent(session) == []
    session.publish({SDS: entries(good="1")})
    assert sent(session) == [(SDS, ["good"], [])]


def test_a_cluster_goes_after_a_listener_that_goes_too() -> None:
    session = connected({CDS: entries(a="1"), LDS: entries(out="to a")})
    session.publish({CDS: {}, LDS: {}})
    [listener] = session.responses()
    assert (listener.type_url, listener.removed) == (LDS, ("out",))
    ack(session, listener)
    assert sent(session) == [(CDS, [], ["a"])]


def test_endpoints_that_a_reconnecting_proxy_names_late_are_sent_to_its_new_clusters() -> None:
    db, known = entries(db="1"), {name: e.version for name, e in entries(db="1").items()}
    session = Session()
    session.publish({CDS: entries(db="2"), EDS: db})
    session.receive(Request(CDS, initial_versions=known))
    assert sent(session) == [(CDS, ["db"], [])]
    session.receive(Request(EDS, subscribe=("db",), initial_versions=known))
    assert sent(session) == [(EDS, ["db"], [])]


def test_a_proxy_that_does_not_answer_gets_no_more_until_it_does() -> None:
    session = Session()
    session.receive(Request(CDS))
    responses: list[Response] = []
    for number in range(100):
        session.publish({CDS: entries(db=str(number))})
        responses += session.responses()
    assert len(responses) == 10
    ack(session, responses[0])
    [newest] = session.responses()
    assert newest.entries == (entries(db="99")["db"],)


def test_names_that_are_asked_for_no_more_are_forgotten() -> None:
    session = Session()
    for number in range(5):
        session.receive(Request(EDS, subscribe=(f"ghost{number}",)))
        for response in session.responses():
            assert response.removed == (f"ghost{number}",)
            ack(session, response)
        session.receive(Request(EDS, unsubscribe=(f"ghost{number}",)))
    assert not session._types[EDS].missing


def test_a_secret_is_never_removed() -> None:
    session = connected({SDS: entries(identity="1")})
    session.publish({SDS: {}})
    assert sent(session) == []


def test_a_secret_asked_for_early_is_sent_when_it_exists() -> None:
    session = Session()
    session.receive(Request(SDS, subscribe=("identity",)))
    assert sent(session) == []
    session.publish({SDS: entries(identity="1")})
    assert sent(session) == [(SDS, ["identity"], [])]


def test_an_unknown_name_is_answered_once_as_removed() -> None:
    session = Session()
    session.receive(Request(EDS, subscribe=("ghost",)))
    assert sent(session) == [(EDS, [], ["ghost"])]
    assert sent(session) == []
    session.publish({EDS: entries(ghost="1")})
    assert sent(session) == [(EDS, ["ghost"], [])]


def test_a_reconnecting_proxy_gets_only_the_difference() -> None:
    old = entries(a="1", b="1", gone="1")
    session = Session()
    session.publish({CDS: entries(a="1", b="2")})
    session.receive(Request(CDS, initial_versions={name: e.version for name, e in old.items()}))
    assert sent(session) == [(CDS, ["b"], ["gone"])]


def test_subscribing_again_sends_again() -> None:
    session = connected({EDS: entries(db="1"), CDS: entries(db="1")})
    session.receive(Request(EDS, subscribe=("db",)))
    assert sent(session) == [(EDS, ["db"], [])]


def test_an_unknown_nonce_proves_nothing() -> None:
    session = Session()
    session.publish({CDS: entries(a="1")})
    session.receive(Request(CDS))
    list(session.responses())
    assert session.receive(Request(CDS, nonce="of another stream")) is None
    assert session.acked(CDS) == {}


def test_a_spliced_response_is_what_protobuf_reads() -> None:
    content = tuple(entries(a="x" * 300, b="").values())
    message = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.encode_response(CDS, "7", content, ("c",)))
    assert (message.type_url, message.nonce, list(message.removed_resources)) == (CDS.value, "7", ["c"])
    assert [(r.name, r.version) for r in message.resources] == [(e.name, e.version) for e in content]


def test_what_a_proxy_has_is_renewed_as_it_has_it() -> None:
    """Content where that is what it should have; otherwise the version that it has acknowledged, each by itself."""
    session = connected({CDS: entries(db="1"), EDS: entries(db="1"), LDS: entries(a="1", b="1", c="1")})
    (all_of_them,) = session.renewals(LDS)
    assert {e.name for e in all_of_them.entries} == {"a", "b", "c"}
    assert ack(session, all_of_them, "rejected") is None
    assert session.converged, "it says nothing of what the proxy runs"
    session.publish({CDS: entries(db="1"), EDS: entries(db="1"), LDS: entries(a="1", b="2")})
    (changed,) = session.responses()
    (again,) = session.renewals(LDS)
    assert [e.name for e in again.entries] == ["a", "b"], "that was sent last, and that c goes"
    ack(session, changed, "bad")
    again, known = session.renewals(LDS)
    assert [e.name for e in again.entries] == ["a"]
    read = discovery_pb2.Resource.FromString(known.entries[0].wire)
    assert (read.name, read.version, read.HasField("resource")) == ("b", entries(b="1")["b"].version, False)


def test_what_a_proxy_wants_no_more_while_it_is_renewed_ends_nothing() -> None:
    session = Session()
    session.publish({LDS: entries(a="1", b="1")})
    session.receive(Request(LDS, subscribe=("a", "b")))
    for response in list(session.responses()):
        ack(session, response)
    session.publish({LDS: entries(a="2", b="2")})
    renewals = session.renewals(LDS)
    assert [e.name for e in next(renewals).entries] == ["a"]
    session.receive(Request(LDS, unsubscribe=("b",)))
    assert not list(renewals)


def test_what_holds_for_a_time_says_so() -> None:
    some = tuple(entries(a="1", b="2").values())
    for seconds in (0.0, 615.0):
        encoded = resource.encode_response(LDS, "1", some, (), holds_for=seconds)
        read = discovery_pb2.DeltaDiscoveryResponse.FromString(encoded)
        assert [r.name for r in read.resources] == ["a", "b"]
        assert [r.ttl.seconds for r in read.resources] == [seconds, seconds]
        assert all(r.HasField("ttl") == bool(seconds) and r.HasField("resource") for r in read.resources)


def test_after_what_it_was_sent_has_arrived_there_is_nothing_to_look_at() -> None:
    """Of thousands that acknowledge the same change, nobody looks through all that they run again."""
    session = connected({CDS: entries(db="1"), EDS: entries(db="1"), LDS: entries(out="1")})
    session.publish({CDS: entries(db="1"), EDS: entries(db="1"), LDS: entries(out="2")})
    (listeners,) = session.responses()
    assert not session.may_respond
    ack(session, listeners)
    assert session.may_respond  # a cluster may go now that nobody routes to
    assert sent(session) == []
    session.publish({CDS: entries(db="1"), EDS: entries(db="2"), LDS: entries(out="2")})
    (endpoints,) = session.responses()
    ack(session, endpoints, "something is wrong with it")
    assert session.may_respond


def test_what_is_removed_is_told_once_to_whoever_has_asked_for_it() -> None:
    session = connected({CDS: entries(db="1"), EDS: entries(db="1", web="1")})
    session.publish({CDS: entries(db="1"), EDS: entries(db="1")})
    (removal,) = session.responses()
    assert removal.removed == ("web",)
    ack(session, removal)
    session.receive(Request(EDS, subscribe=("db",)))
    assert sent(session) == [(EDS, ["db"], [])]
