"""Where inbounds may lead to: an allow rule, and what administrators add to it."""

from typing import Any

import pytest

from kuma.policy import workloads
from kuma.policy.workloads import Destination, Surroundings
from kuma.resources.models.dataplane import Inbound, Networking

OWN = {5681: "API server"}


def refused(
    allowed: tuple[str, ...] = (),
    administrations: tuple[int, ...] = (),
    *,
    address: str = "10.0.0.1",
    advertised: str = "",
    listens: str = "",
    inbounds: frozenset[tuple[str, int]] = frozenset(),
    networks: tuple[str, ...] = (),
    **inbound: Any,
) -> str:
    """The reason why the only inbound is refused; empty if it is not."""
    tags = {"kuma.io/service": "web"}
    networking = Networking(
        address=address,
        advertised_address=advertised,
        inbound=(Inbound(**{"port": 80, "service_port": 8080, "address": listens, "tags": tags, **inbound}),),
    )
    around = Surroundings(
        OWN, frozenset(administrations), tuple(map(Destination.parse, allowed)), inbounds, _read(networks)
    )
    return "; ".join(str(violation) for _, violation in workloads.refusals(networking, around))


def _read(networks: tuple[str, ...]) -> tuple[Destination, ...]:
    return tuple(map(Destination.parse, networks))


@pytest.mark.parametrize(
    "service_address", ["", "127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "10.0.0.1", "::ffff:10.0.0.1"]
)
def test_the_machine_itself_is_allowed(service_address: str) -> None:
    assert refused(service_address=service_address) == ""


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.0.0.2", "on another machine"),
        ("192.0.2.1", "on another machine"),
        ("fd00::1", "on another machine"),
        ("::10.0.0.1", "on another machine"),
        ("64:ff9b::a9fe:a9fe", "on another machine"),
        ("169.254.169.254", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fd00:ec2::254", "an address of metadata services"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
    ],
)
def test_anywhere_else_is_not_unless_an_administrator_says_so(address: str, reason: str) -> None:
    assert reason in refused(service_address=address)
    assert workloads.SETTING in refused(service_address=address)
    shown = f"[{address}]" if ":" in address else address
    mapped = address.removeprefix("::ffff:")
    for allowed in (mapped, f"{mapped if '.' in mapped and ':' not in mapped else shown}:8080"):
        assert refused((allowed,), service_address=address) == ""
    assert refused(("203.0.113.0/24", f"{shown}:8081"), service_address=address)
    assert reason in refused(("203.0.113.1:8080",), service_address=address), "this port, of another address"


def test_what_only_the_dataplane_says_of_itself_does_not_make_an_address_its_own() -> None:
    """Where Envoy listens is the machine's; `networking.address` may be anything while an inbound listens elsewhere."""
    assert refused(address="10.0.0.9", listens="10.0.0.1", service_address="10.0.0.9")
    assert refused(address="169.254.169.254", service_port=80, port=8080)
    assert refused(address="169.254.169.254", listens="10.0.0.1", service_address="169.254.169.254")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1"])
def test_ports_that_trust_the_machine_are_no_workloads(address: str) -> None:
    assert "this control plane's own API server" in refused(service_address=address, service_port=5681)
    assert "the administration of an Envoy" in refused((), (9902,), service_address=address, service_port=9902)
    assert refused(("127.0.0.0/8", "::/64"), (9902,), service_address=address, service_port=5681)  # not for all ports
    where = "[::1]" if address == "::1" else "0.0.0.0" if address == "0.0.0.0" else "127.0.0.1"
    assert refused((f"{where}:5681",), (), service_address=address, service_port=5681) == ""
    assert refused((f"{where}:9902",), (9902,), service_address=address, service_port=9902) == ""


def test_nor_are_callers_sent_there() -> None:
    assert "administration" in refused((), (80,))
    assert "own API server" in refused(advertised="127.0.0.1", port=5681)
    assert "link-local" in refused(advertised="169.254.169.254")
    assert refused(advertised="192.0.2.1") == ""  # the address of a load balancer, say


@pytest.mark.parametrize(
    "text", ["", "x", "10.0.0.1/8", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:99999", "10.0.0.1:x", "[::1"]
)
def test_what_is_no_destination_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"no address and no network|no port"):
        Destination.parse(text)


@pytest.mark.parametrize("service_address", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"])
def test_other_spellings_of_an_address_lead_to_the_same_place(service_address: str) -> None:
    places, told = frozenset({("127.0.0.1", 8080)}), "is the inbound of another Dataplane"
    assert told in refused(inbounds=places, service_address=service_address)
    assert refused(inbounds=places, service_address=service_address, service_port=8081) == ""
    assert refused(("127.0.0.0/8",), inbounds=places, service_address="127.0.0.1") != ""
    assert refused(("127.0.0.1:8080",), inbounds=places, service_address="127.0.0.1") == ""


@pytest.mark.parametrize(
    ("networks", "place", "refuses"),
    [
        ((), {"address": "192.0.2.1"}, False),
        (("10.0.0.0/8",), {"address": "10.0.0.1"}, False),
        (("10.0.0.0/8",), {"address": "192.0.2.1"}, True),
        (("10.0.0.0/8",), {"address": "::ffff:192.0.2.1"}, True),
        (("10.0.0.0/8",), {"address": "10.0.0.1", "advertised": "192.0.2.1"}, True),
        (("10.0.0.0/8", "192.0.2.1"), {"address": "10.0.0.1", "advertised": "192.0.2.1"}, False),
        (("10.0.0.0/8",), {"address": "10.0.0.1", "listens": "192.0.2.1"}, True),
        (("10.0.0.0/8",), {"address": "127.0.0.1"}, False),
        (("192.0.2.1:81",), {"address": "192.0.2.1"}, True),
        (("10.0.0.0/8",), {"address": "10.0.0.1", "advertised": "balancer.example"}, False),  # judged once it is found
    ],
)
def test_dataplanes_are_called_where_an_administrator_says_that_they_are(
    networks: tuple[str, ...], place: dict[str, str], refuses: bool
) -> None:
    told = refused(networks=networks, service_address="127.0.0.1", **place)  # type: ignore[arg-type]
    assert (workloads.NETWORKS in told) is refuses, told


@pytest.mark.parametrize(
    ("port", "is_one"), [("0", False), ("1", True), ("65535", True), ("65536", False), ("", False)]
)
def test_the_port_of_what_is_allowed_is_one_that_can_be_called(port: str, is_one: bool) -> None:
    if is_one:
        assert Destination.parse(f"10.0.0.7:{port}").port == int(port)
    else:
        with pytest.raises(ValueError, match="no port between 1 and 65535"):
            Destination.parse(f"10.0.0.7:{port}")


def test_a_port_of_the_control_plane_is_free_on_machines_that_administrators_allow() -> None:
    assert not refused(("10.1.0.0/16",), service_address="10.1.0.5", service_port=5681)


def test_no_inbound_leads_to_an_administration_at_an_address_of_its_own() -> None:
    told = refused(administrations=(9901,), listens="10.0.0.9", service_address="10.0.0.9", service_port=9901)
    assert "is the administration of an Envoy" in told


def test_callers_are_not_sent_to_an_administration_on_the_loopback_and_may_be_to_its_port_elsewhere() -> None:
    assert "is the administration of an Envoy" in refused(administrations=(9901,), listens="127.0.0.1", port=9901)
    assert not refused(administrations=(80,), advertised="10.9.9.9")


def test_where_callers_are_sent_another_dataplane_may_have_an_inbound() -> None:
    assert not refused(inbounds=frozenset({("10.0.0.1", 80)}))


def test_a_network_that_is_allowed_has_no_administration_of_this_machine_but_on_the_loopback() -> None:
    """Only with its port does an administrator allow it there."""
    assert not refused(("10.1.0.0/16",), (9901,), service_address="10.1.0.5", service_port=9901)
    told = refused(("127.0.0.0/8",), (9901,), service_address="127.0.0.1", service_port=9901)
    assert "is the administration of an Envoy" in told
    assert not refused(("127.0.0.1:9901",), (9901,), service_address="127.0.0.1", service_port=9901)


def test_where_dataplanes_may_be_called_does_not_bind_where_their_inbounds_lead() -> None:
    assert not refused(("10.1.0.5:80",), networks=("10.0.0.0/16",), service_address="10.1.0.5", service_port=80)
