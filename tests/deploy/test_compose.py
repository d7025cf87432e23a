"""The compose file: its services' commands with their environments, as processes, behind a real HAProxy."""

import functools
import re
import shutil
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.mesh import Ports
from demo.postgres import Postgres
from demo.processes import BIN, Processes, until
from kuma.app.serving import server_certificate
from tests.deploy.test_haproxy import haproxy
from tests.fakes.patience import PATIENCE

FILE = Path(__file__).parents[2] / "deploy" / "docker" / "compose.yaml"
CONTROL_PLANES = ("cp-1", "cp-2", "cp-3")
PROGRAMS = {"${KUMA_CP_IMAGE:-kuma-cp}": "kuma-cp"}
"""What images run, by their entry point."""


class Stack:
    """The services of the file on addresses of the loopback, each on one of its own, with the database of the tests."""

    def __init__(self, directory: Path, processes: Processes, database: Mapping[str, str]) -> None:
        self.services: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
        self.ports = Ports.free()
        self.directory = directory
        self.processes = processes
        self._database = database

    def start(self, name: str) -> Any:
        """Start a service as the file says, but for where things are."""
        service = self.services[name]
        return self.processes.start(name, [BIN / PROGRAMS[service["image"]], *service["command"]], self._settings(name))

    def _settings(self, name: str) -> dict[str, str]:
        found = dict(self.services[name]["environment"])
        assert found.keys() >= self._database.keys(), "the file names the database in the same settings"
        host = self.host(name)
        found = {key: value.replace("0.0.0.0", host) for key, value in found.items()}
        for inside, outside in (("/var/lib/kuma", "state"), ("/tls", "tls")):
            found = {
                key: value.replace(f"{inside}/", f"{self.directory / outside}/", 1) for key, value in found.items()
            }
        servers = {"API_SERVER_HTTP": "api", "API_SERVER_HTTPS": "https", "DP_SERVER": "dp", "XDS_SERVER": "xds"}
        servers["DIAGNOSTICS_SERVER"] = "diagnostics"
        ports = {f"KUMA_{server}_PORT": str(getattr(self.ports, port)) for server, port in servers.items()}
        return {**found, **self._database, **ports, "KUMA_API_SERVER_HTTP_INTERFACE": host}

    def host(self, name: str) -> str:
        """The address of a service here: that of the file is in a network of its own."""
        given = self.services[name]["networks"]["mesh"].get("ipv4_address", "10.0.0.0")
        return f"127.0.0.{20 + int(given.rpartition('.')[2])}"

    def start_balancer(self) -> None:
        """HAProxy with the file that the service mounts, which has the addresses of the network."""
        mounted = self.services["balancer"]["volumes"][0].split(":")[0]
        here = {"5678": self.ports.dp, "5677": self.ports.xds, "5682": self.ports.https, "5680": self.ports.diagnostics}
        text = (FILE.parent / mounted).read_text()
        for name in CONTROL_PLANES:
            text = text.replace(self.services[name]["networks"]["mesh"]["ipv4_address"] + ":", f"{self.host(name)}:")
        text = re.sub(r"bind :(\d+)", lambda found: f"bind 127.0.0.1:{here[found[1]]}", text)
        text = re.sub(r"(127[\d.]+:|check port )(\d{4})\b", lambda found: found[1] + str(here[found[2]]), text)
        configuration = self.directory / "haproxy.cfg"
        configuration.write_text(text)
        options = self.services["balancer"]["command"][1:-1]
        self.processes.start("balancer", [haproxy(), *options, configuration], {})

    def instances(self) -> list[dict[str, Any]]:
        """What whoever answers behind the balancer says of all."""
        trust = ssl.create_default_context(cafile=self.directory / "tls" / "ca.crt")
        url = f"https://localhost:{self.ports.https}/control-planes"
        try:
            with urllib.request.urlopen(url, context=trust, timeout=PATIENCE) as answer:
                return list(yaml.safe_load(answer.read())["items"])
        except urllib.error.HTTPError as error:
            assert error.code == 503, error.read()
            return []
        except OSError:  # nobody is there yet
            return []


@pytest.fixture
def stack(postgres_instance: Postgres, tmp_path: Path) -> Iterator[Stack]:
    made = server_certificate.ensure(tmp_path / "made", ["localhost"], datetime.now(UTC))
    (tmp_path / "tls").mkdir()
    for path in (made.chain, made.key, made.ca):
        shutil.copy(path, tmp_path / "tls" / path.name)
    with Processes(tmp_path) as processes:
        yield Stack(tmp_path, processes, postgres_instance.settings(postgres_instance.create("composed")))


def test_three_control_planes_act_as_one_and_one_may_be_killed(stack: Stack) -> None:
    migration = stack.start("migrate")
    assert migration.wait() == 0, (stack.directory / "migrate.log").read_text()
    stack.processes.forget(migration)
    running = {name: stack.start(name) for name in CONTROL_PLANES}
    stack.start_balancer()
    until("all are there", lambda: len(stack.instances()) == len(CONTROL_PLANES), stack.processes)
    until("one leads", lambda: sum(one["leader"] for one in stack.instances()) == 1, stack.processes)
    leader = next(one["address"].rpartition(":")[0] for one in stack.instances() if one["leader"])
    name = next(name for name in CONTROL_PLANES if stack.host(name) == leader)
    stack.processes.forget(running[name])
    running[name].kill()
    running[name].wait()
    until("another leads", functools.partial(_leads, stack, running.keys() - {name}), stack.processes)


def _leads(stack: Stack, names: set[str]) -> bool:
    leaders = {one["address"].rpartition(":")[0] for one in stack.instances() if one["leader"]}
    return bool(leaders) and leaders <= {stack.host(name) for name in names}
