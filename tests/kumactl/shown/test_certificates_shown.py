"""`kumactl get certificates`: asked for like resources, which they are not."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kumactl.fake_server import Server, serving
from tests.kumactl.test_transport import KUMA, add, kumactl

TIMES = {"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2026-02-01T00:00:00Z"}
ITEMS: list[dict[str, object]] = [
    {"type": "Certificate", "mesh": "default", "name": name, "serial": "1", "spiffeIds": [], "backend": "ca-1",
     "reason": "connected", **TIMES}
    for name in ("db-01", "web-01")
]  # fmt: skip
PATH = "/meshes/default/certificates"
GET = ("get", "certificates")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving({"/": (200, KUMA), PATH: (200, {"total": 2, "items": ITEMS, "next": None})}) as found:
        add(tmp_path, f"http://localhost:{found.port}", "--skip-check")
        yield found


def names(table: str) -> list[str]:
    return [line.split()[1] for line in table.splitlines()]


def test_of_one_dataplane(server: Server, tmp_path: Path) -> None:
    assert names(kumactl(tmp_path, *GET, "web-01").stdout) == ["NAME", "web-01"]
    assert json.loads(kumactl(tmp_path, *GET, "web-01", "-o", "json").stdout) == ITEMS[1]
    done = kumactl(tmp_path, *GET, "nobody")
    assert (done.returncode, done.stderr) == (1, 'Error: Dataplane "nobody" in mesh "default" has no certificate\n')


def test_of_all(server: Server, tmp_path: Path) -> None:
    assert names(kumactl(tmp_path, *GET).stdout) == ["NAME", "db-01", "web-01"]


def test_a_part_of_them(server: Server, tmp_path: Path) -> None:
    server.answers = {**server.answers, PATH: (200, {"total": 2, "items": ITEMS[:1], "next": "/x?offset=1"})}
    done = kumactl(tmp_path, *GET, "--size", "1", "--offset", "0")
    assert done.stdout.endswith("\nRerun command with --offset=1 argument to retrieve more resources\n")
    assert server.asked[-1][0] == f"{PATH}?size=1&offset=0"


def test_they_are_among_what_can_be_shown_and_not_deleted(server: Server, tmp_path: Path) -> None:
    assert "Allowed values: all, certificates, " in kumactl(tmp_path, "get", "thing").stderr
    done = kumactl(tmp_path, "delete", "certificates", "web-01")
    assert (done.returncode, "certificates, " in done.stderr) == (1, False)
