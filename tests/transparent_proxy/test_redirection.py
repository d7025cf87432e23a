"""What is redirected, as it is given and as the kernel is told."""

import pytest

from kuma.base.errors import Misconfigured
from kuma.transparent_proxy import redirection
from kuma.transparent_proxy.redirection import IpFamilyMode, LeftAlone, Redirection
from kuma.transparent_proxy.ruleset import removal, ruleset


def lines(script: str) -> list[str]:
    return [line.strip() for line in script.splitlines()]


def test_ports_are_read_in_order_and_once() -> None:
    assert redirection.ports("-p", "") == ()
    assert redirection.ports("-p", "8080, 22,8081-8090,8085-8100") == ("22", "8080-8100")


@pytest.mark.parametrize("text", ["0", "65536", "x", "90-80", "-1", "1-", "22;drop", "²", "9" * 5000])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match=r"^-p: .* has to be a port"):
        redirection.ports("-p", text)


def test_addresses_are_networks_of_both_versions_and_never_overlap() -> None:
    assert redirection.addresses("-a", "fd00::/8, 10.1.2.3,10.0.0.0/8") == ("10.0.0.0/8", "fd00::/8")
    with pytest.raises(Misconfigured, match=r"-a: .*10\.0\.0\.1/8"):
        redirection.addresses("-a", "10.0.0.1/8")


def test_users_whose_calls_are_left_alone() -> None:
    read = redirection.left_alone
    assert read("-u", "1000") == read("-u", "*:1000") == read("-u", "tcp:1000") == LeftAlone(("1000",))
    assert read("-u", "tcp:22,80:1000-2000") == LeftAlone(("1000-2000",), ("22", "80"))
    assert read("-u", "udp:53:1000") is None
    for wrong in ("tcp:22:*", "sctp:1:1", "1:2:3:4", "22:", "22:root"):
        with pytest.raises(Misconfigured, match=r"^-u: "):
            read("-u", wrong)


def test_what_the_proxy_sends_is_not_redirected_but_for_calls_of_its_own_inbound() -> None:
    rules = lines(ruleset(Redirection(uid=77)))
    back, own = (
        'oifname "lo" ip saddr 127.0.0.6 return',
        'oifname "lo" meta skuid 77 ip daddr != 127.0.0.0/8 meta l4proto',
    )
    turns = [back, f"{own} tcp redirect to :15006", 'oifname "lo" return', "meta skuid 77 return"]
    assert [rules.index(rule) for rule in turns] == sorted(rules.index(rule) for rule in turns)
    assert rules[-3] == "meta l4proto tcp redirect to :15001"


def test_exclusions_come_before_what_is_redirected() -> None:
    rules = ruleset(
        Redirection(
            uid=77,
            excluded_inbound_ports=("22",),
            excluded_inbound_addresses=("10.0.0.1/32", "fd00::/8"),
            excluded_outbound_ports=("5432",),
            excluded_outbound_addresses=("10.0.0.0/8",),
            left_alone=(LeftAlone(("1000",), ("22",)), LeftAlone(("2000",))),
            drops_invalid=True,
        )
    )
    inbound, outbound = rules.split("chain KUMA_MESH_INBOUND")[1].split("chain KUMA_MESH_OUTBOUND")
    for rule in ("tcp dport { 22 } return", "ip saddr { 10.0.0.1/32 } return", "ip6 saddr { fd00::/8 } return"):
        assert 0 < inbound.index(rule) < inbound.index("redirect to :15006")
    for rule in (
        "tcp dport { 5432 } return",
        "ip daddr { 10.0.0.0/8 } return",
        "meta skuid { 1000 } tcp dport { 22 } return",
        "meta skuid { 2000 } return",
    ):
        assert outbound.index("meta skuid 77 return") < outbound.index(rule) < outbound.index("redirect to :15001")
    assert "ct state invalid drop" in outbound


def test_a_gateway_is_called_by_everybody_and_calls_through_its_proxy() -> None:
    rules = ruleset(Redirection(uid=77, inbound_port=None))
    assert "INBOUND" not in rules
    assert "15006" not in rules
    assert "redirect to :15001" in rules


def test_ipv6_is_left_alone_on_demand() -> None:
    assert ruleset(Redirection(uid=77)).count("nfproto") == 0
    assert ruleset(Redirection(uid=77, mode=IpFamilyMode.IPV4)).count("meta nfproto != ipv4 return") == 2


def test_rules_take_the_place_of_those_before_in_the_same_transaction() -> None:
    assert ruleset(Redirection(uid=77)).startswith(removal())
