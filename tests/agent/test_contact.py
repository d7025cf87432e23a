"""When a proxy is taken to have lost the control plane."""

from __future__ import annotations

import json

from kuma.agent.contact.guard import Contact, stands


def lost_after(looks: dict[float, bool], limit: float) -> float | None:
    contact = Contact(limit, 0.0)
    for now, seen in looks.items():
        contact.look(seen, now)
        if contact.is_lost:
            return now
    return None


def every_second(seen: list[bool]) -> dict[float, bool]:
    return {second + 1.0: one for second, one in enumerate(seen)}


def test_it_is_lost_once_no_stream_has_stood_for_the_limit() -> None:
    assert lost_after(every_second([True] * 40 + [False] * 40), limit=20.0) == 60.0


def test_a_stream_that_stands_for_a_moment_whenever_it_is_asked_for_is_no_contact() -> None:
    """So does one that the control plane refuses."""
    assert lost_after(every_second([True] * 10 + [False, True] * 30), limit=20.0) == 30.0


def test_an_envoy_that_begins_has_time_to_connect_whatever_the_limit_is() -> None:
    assert lost_after(every_second([False] * 12 + [True] * 20), limit=2.0) is None
    assert lost_after(every_second([False] * 30), limit=2.0) == 15.0


def test_who_was_stopped_gives_envoy_a_moment() -> None:
    contact = Contact(4.0, 0.0)
    contact.look(True, 1.0)
    contact.look(True, 2.0)
    contact.look(False, 100.0)
    assert not contact.is_lost
    contact.look(False, 104.0)
    assert contact.is_lost


def test_looks_are_near_enough_to_each_other_to_see_one_stream_twice() -> None:
    assert Contact(0.4, 0.0).pause <= 0.1
    assert Contact(600.0, 0.0).pause == 1.0


def test_what_is_no_answer_of_envoy_is_no_stream() -> None:
    both = [{"name": "a", "value": 1}, {"name": "b", "value": 2}]
    assert stands(json.dumps({"stats": both}).encode())
    for one in (b"", b"no json", b"[]", b"{}", b'{"stats": null}', json.dumps({"stats": both[:1]}).encode()):
        assert not stands(one)
    asked = [{"name": "a", "value": 1}, {"name": "b", "value": 0}]
    assert not stands(json.dumps({"stats": asked}).encode())
