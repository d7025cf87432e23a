"""The log: lines stay lines, command no terminal, and nobody who connects fills the disk with them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import structlog

from kuma.base import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_line_stays_one_and_commands_no_terminal(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    logs.log_as("info", form)
    structlog.get_logger().warning("refused", reason="a\n2026 [info] b\x1b[2J\x9b2J\u202ec", path="/\x1b[31mred")
    told = capfd.readouterr().err
    assert len(told.splitlines()) == 1
    assert told.removesuffix("\n").isprintable()
    assert "red" in told


def refusals_told(peers: Iterable[str], capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of a log in which each of these peers was refused, one after the other."""
    logs.log_as("info", "json")
    for peer in peers:
        structlog.get_logger().warning("refused", peer=peer)
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_who_connects_again_and_again_has_few_lines_and_others_have_theirs(capfd: pytest.CaptureFixture[str]) -> None:
    peers = [f"ipv4:10.0.0.1:{port}" for port in range(1000)]
    *told, other = refusals_told([*peers, "ipv4:10.0.0.2:1"], capfd)
    structlog.get_logger().warning("proxy connected", dataplane="web-01")
    last = json.loads(capfd.readouterr().err)
    assert 100 <= len(told) < 500
    assert other["peer"] == "ipv4:10.0.0.2:1"
    assert last["dataplane"] == "web-01"
    assert len(told) + sum(line.get("left_out", 0) for line in (*told, other)) == 1000


def test_a_network_of_ipv6_has_few_lines_as_an_address_has(capfd: pytest.CaptureFixture[str]) -> None:
    peers = [f"ipv6:%5B2001:db8::{host:x}%5D:5000" for host in range(1000)]
    *told, other = refusals_told([*peers, "ipv6:%5B2001:db8:1::1%5D:5000"], capfd)
    assert 100 <= len(told) < 500
    assert other["peer"] == "ipv6:%5B2001:db8:1::1%5D:5000"


def test_what_clients_send_to_the_http_server_is_not_warned_of_and_its_errors_are_told() -> None:
    logs.log_as("info", "json")
    server = logging.getLogger("uvicorn.error")
    assert not server.isEnabledFor(logging.WARNING)
    assert server.isEnabledFor(logging.ERROR)


def test_a_full_disk_under_the_log_ends_nothing_and_what_is_lost_is_told() -> None:
    """Before, the first line that could not be written ended the control plane, or `kuma-dp` and its Envoy."""
    target = os.open("/dev/full", os.O_WRONLY)
    output = logs.Output(target, room=200)
    logs.log_as("info", "json", output)
    log = structlog.get_logger()
    for number in range(10):
        log.info("certificate issued", number=number)
    readable, writable = os.pipe()
    os.dup2(writable, target)  # there is room again
    log.info("certificate issued", number=10)
    os.close(target)
    os.close(writable)
    with os.fdopen(readable) as file:
        told = [json.loads(line) for line in file]
    assert [line["number"] for line in told] == [*range(len(told) - 1), 10]
    assert told[-1]["lines_lost"] == 10 - (len(told) - 1)


def test_whoever_does_not_read_the_log_keeps_nothing_waiting() -> None:
    readable, writable = os.pipe()
    output = logs.Output(writable, room=1 << 20)
    logs.log_as("info", "console", output)
    for number in range(100):
        structlog.get_logger().info("certificate issued", number=number, chain="x" * 5000)  # more than a pipe holds
    os.set_blocking(readable, False)
    content = b""
    while piece := os.read(readable, 1 << 20):
        content += piece
        output.finish(0)
        if content.count(b"\n") == 100:
            break
    assert b"number=99" in content
    os.close(readable)
    structlog.get_logger().info("nobody reads any more")
    os.close(writable)
