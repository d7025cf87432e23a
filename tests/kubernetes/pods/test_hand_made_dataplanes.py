"""What people may say in a Dataplane that they write in a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kuma.kubernetes.workloads import hand_made
from kuma.resources import kinds, parsing
from kuma.resources.models.dataplane import DataplaneSpec, Networking


def networking(**said: Any) -> Networking:
    found = parsing.parse_spec(kinds.DATAPLANE, {"networking": {"address": "10.0.0.7", **said}}, "m")
    assert isinstance(found, DataplaneSpec)
    return found.net


def refused(tags: Mapping[str, str], labels: Mapping[str, str] | None = None) -> list[str]:
    tagged = {"kuma.io/service": "own_shop_svc_80", **tags}
    found = networking(inbound=[{"port": 8080, "serviceAddress": "127.0.0.1", "tags": tagged}])
    return [violation.field for violation in hand_made.violations(found, labels or {}, "shop")]


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"version": "2", "kuma.io/protocol": "http", "kuma.io/zone": "default", "kuma.io/instance": "a"},
        {"kuma.io/service": "database"},  # outside of the cluster
        {"kuma.io/service": "own_shop_svc"},
    ],
)
def test_what_is_ones_own_may_be_said(tags: dict[str, str]) -> None:
    assert refused(tags) == []


@pytest.mark.parametrize("service", ["redis_billing_svc_6379", "redis_billing_svc", "a_shop_svc_80_billing_svc_80"])
def test_nobody_is_a_service_of_another_namespace(service: str) -> None:
    assert refused({"kuma.io/service": service}) == ['networking.inbound[0].tags["kuma.io/service"]']


@pytest.mark.parametrize("name", ["k8s.kuma.io/address.10.96.0.5:80", "k8s.kuma.io/namespace", "kuma.io/serving"])
def test_what_the_control_plane_says_nobody_else_says_by_tags_or_labels(name: str) -> None:
    assert refused({name: "x"}) == [f'networking.inbound[0].tags["{name}"]']
    assert refused({}, {name: "x"}) == [f'labels["{name}"]']
    assert refused({}, {"team": "blue", "kuma.io/display-name": "own"}) == []


def test_all_addresses_at_which_it_is_called_are_looked_at() -> None:
    tags = {"kuma.io/service": "own"}
    inbound = {"port": 80, "address": "10.0.0.9", "serviceAddress": "127.0.0.1", "tags": tags}
    found = networking(advertisedAddress="10.0.0.8", inbound=[inbound])
    assert hand_made.addresses(found) == {
        "10.0.0.7": "networking.address",
        "10.0.0.8": "networking.advertisedAddress",
        "10.0.0.9": "networking.inbound[0].address",
    }


def test_an_address_is_the_same_however_it_is_written() -> None:
    found = networking(advertisedAddress="2001:DB8:0::7", gateway={"tags": {"kuma.io/service": "own"}})
    assert "2001:db8::7" in hand_made.addresses(found)
    found = networking(advertisedAddress="::ffff:10.0.0.8", gateway={"tags": {"kuma.io/service": "own"}})
    assert "10.0.0.8" in hand_made.addresses(found), "as Pods and Services have it"
