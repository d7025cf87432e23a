"""Inbounds at one place are one workload: who may call one of them reaches it, unless the other denies."""

from __future__ import annotations

from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.foresight.judge import Judge
from kuma.policy.permissions import Permissions
from kuma.resources import codec
from kuma.resources.models import target_ref
from kuma.resources.view import MeshView
from tests.fakes.control_plane import MTLS, resource

ALLOW = (
    "{type: MeshTrafficPermission, mesh: default, name: NAME, spec: {targetRef: {kind: MeshService, name: TO}, from: ["
)
DEFAULT = "{targetRef: {kind: MeshService, name: FROM}, default: {action: ACTION}}]}}"


def rule(to: str, caller: str, action: str = "Allow") -> Any:
    text = ALLOW.replace("NAME", f"{to}-{caller}-{action.lower()}").replace("TO", to)
    return resource(text + DEFAULT.replace("FROM", caller).replace("ACTION", action))


def dataplane(*inbounds: dict[str, Any]) -> Any:
    networking = {
        "address": "10.0.0.1",
        "inbound": [{"port": 80, "serviceAddress": "127.0.0.1", **i} for i in inbounds],
    }
    return codec.parse({"type": "Dataplane", "mesh": "default", "name": "both", "networking": networking})


def tags(service: str, **more: str) -> dict[str, Any]:
    return {"tags": {"kuma.io/service": service, **more}}


BOTH = dataplane(tags("a"), tags("b"))


def admitted(*permissions: Any) -> tuple[set[str], set[str]]:
    """Whom both inbounds admit, and whom they refuse: the same ones."""
    view = MeshView("default")
    for one in (resource(MTLS), BOTH, *permissions):
        view = view.having(one)
    judge = Judge(view)
    first, second = (judge.admission(BOTH, inbound) for inbound in BOTH.spec.net.inbound)
    assert first == second
    named = [{dict(p.tags)["kuma.io/service"] for p in principals} for principals in (first.principals, first.denied)]
    return named[0], named[1]


def test_who_may_call_one_of_them_is_admitted() -> None:
    assert admitted() == (set(), set())
    assert admitted(rule("a", "x")) == ({"x"}, set())
    assert admitted(rule("a", "x"), rule("b", "y")) == ({"x", "y"}, set())


def test_who_is_denied_by_one_is_admitted_by_none() -> None:
    assert admitted(rule("a", "x"), rule("b", "x", "Deny")) == ({"x"}, {"x"})


def test_what_is_said_of_them_is_combined_once_and_follows_the_permissions() -> None:
    rules = {one.name: one for one in (rule("a", "x"), rule("b", "y"))}
    known_by = target_ref.facets(BOTH, BOTH.spec.net.inbound[0])
    before = Permissions().following({}, rules)
    assert before.admission(known_by) is before.admission(dict(reversed(known_by.items())))
    after = before.following({}, {name: one for name, one in rules.items() if not name.startswith("b")})
    assert len(after.admission(known_by).principals) == 1


def test_those_elsewhere_have_nothing_to_do_with_each_other() -> None:
    apart = dataplane(tags("a"), {"port": 81, **tags("b")})
    assert target_ref.apart(target_ref.facets(apart, apart.spec.net.inbound[0])) == [
        target_ref.facets(apart, apart.spec.net.inbound[0])
    ]
    own, beside = target_ref.apart(target_ref.facets(BOTH, BOTH.spec.net.inbound[1], frozenset()))
    assert (own["kuma.io/service"], beside["kuma.io/service"]) == ("b", "a")


@pytest.mark.parametrize(
    "second",
    [
        tags("a"),
        tags("b", **{"kuma.io/protocol": "http"}),
        {"servicePort": 8080, **tags("b")},
        {"serviceProbe": {"tcp": {}}, **tags("b")},
    ],
)
def test_one_place_is_one_workload_by_one_protocol(second: dict[str, Any]) -> None:
    with pytest.raises(InvalidResource, match=r"10\.0\.0\.1:80 is already taken by networking\.inbound\[0\]\.port"):
        dataplane(tags("a"), second)
