"""`kumactl install transparent-proxy` and its removal, by the kernel of a host of their own."""

from collections.abc import Iterator

import pytest

from demo.processes import BIN
from tools.hosts import Host, host

INSTALL = (BIN / "kumactl", "install", "transparent-proxy")
UNINSTALL = (BIN / "kumactl", "uninstall", "transparent-proxy")
FOREIGN = (
    "table inet somebodys {\n\tchain theirs {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}\n"
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with host() as found:
        found.run("nft", "-f", "-", input=FOREIGN)
        yield found


def rules(machine: Host) -> str:
    return machine.run("nft", "list", "ruleset")


def addresses(machine: Host) -> str:
    return machine.run("ip", "-6", "address", "show", "dev", "lo")


def test_it_is_applied_twice_changed_in_one_step_and_removed_without_a_trace(machine: Host) -> None:
    before = rules(machine), addresses(machine)
    said = machine.run(*INSTALL, "--kuma-dp-uid=5678", "--exclude-inbound-ports=22")
    assert said == "# Transparent proxy set up successfully, you can now run kuma-dp using transparent-proxy.\n"
    once = rules(machine), addresses(machine)
    assert "tcp dport 22 return" in once[0]
    assert "::6/128" in once[1]
    machine.run(*INSTALL, "--kuma-dp-uid=5678", "--exclude-inbound-ports=22")
    assert (rules(machine), addresses(machine)) == once
    said = machine.run(*INSTALL, "--kuma-dp-uid=5678", "--redirect-inbound=false", "--verbose")
    assert "nft -f -" in said
    assert "chain KUMA_MESH_OUTBOUND" in said
    assert "INBOUND" not in rules(machine)
    machine.run(*UNINSTALL)
    assert (rules(machine), addresses(machine)) == before
    machine.run(*UNINSTALL)
    assert (rules(machine), addresses(machine)) == before


def test_what_the_kernel_takes_is_what_a_dry_run_prints(machine: Host) -> None:
    every = (
        "--kuma-dp-uid=5678", "--redirect-outbound-port=1", "--redirect-inbound-port=2", "--ip-family-mode=ipv4",
        "--exclude-inbound-ports=22,8000-8080", "--exclude-inbound-ips=10.0.0.0/8,fd00::1",
        "--exclude-outbound-ports=5432", "--exclude-outbound-ips=10.0.0.0/8", "--exclude-outbound-ips=fd00::/8",
        "--exclude-outbound-ports-for-uids=tcp:22:1000-2000", "--drop-invalid-packets",
    )  # fmt: skip
    printed = machine.run(*INSTALL, *every, "--dry-run", uid=5678)
    machine.run(*INSTALL, *every)
    installed = machine.run("nft", "list", "table", "inet", "kuma_mesh")
    machine.run("nft", "-f", "-", input=printed)
    assert machine.run("nft", "list", "table", "inet", "kuma_mesh") == installed
    assert machine.run(*UNINSTALL, "--dry-run", uid=5678) == "table inet kuma_mesh {}\ndelete table inet kuma_mesh\n"
    machine.run(*UNINSTALL)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--kuma-dp-user or --kuma-dp-uid should be supplied"),
        (
            ["--kuma-dp-user=nobody-has-this-name"],
            "--kuma-dp-user or --kuma-dp-uid should refer to a valid user on the host",
        ),
        (["--kuma-dp-uid=-1"], '--kuma-dp-uid "-1" has to be the id of a user'),
        (["--kuma-dp-uid=1", "--redirect-inbound=perhaps"], "--redirect-inbound perhaps: has to be true or false"),
        (["--kuma-dp-uid=1", "--redirect-inbound-port-v6=7"], "--redirect-inbound-port-v6 7: IPv6 goes to the port"),
        (["--kuma-dp-uid=1", "--exclude-inbound-ports=ssh"], '--exclude-inbound-ports: "ssh" has to be a port'),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(machine: Host, arguments: list[str], reason: str) -> None:
    before = rules(machine)
    said = machine.run(*INSTALL, *arguments, check=False)
    assert reason in said
    assert "Traceback" not in said
    assert rules(machine) == before


def test_users_other_than_root_are_told_so(machine: Host) -> None:
    for command in ((*INSTALL, "--kuma-dp-uid=5678"), UNINSTALL):
        assert "you need to have root privileges to run this command" in machine.run(*command, uid=5678, check=False)


def test_root_without_the_right_to_change_the_network_is_told_which(machine: Host) -> None:
    without = ("setpriv", "--bounding-set=-net_admin")
    said = machine.run(*without, *INSTALL, "--kuma-dp-uid=5678", "--ip-family-mode=ipv4", check=False)
    assert "Operation not permitted" in said
    assert "NET_ADMIN" in said


def test_what_the_original_does_for_dns_is_told_not_to_be_done(machine: Host) -> None:
    said = machine.run(*INSTALL, "--kuma-dp-uid=0", "--redirect-dns", "--dry-run")
    assert "Warning: DNS is not redirected" in said
    assert "Warning: whatever root sends is not redirected" in said
