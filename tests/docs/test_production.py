"""What `docs/production.md` tells people to do, done: its settings, its commands and its units, on this machine."""

import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo.mesh import Ports, get
from demo.postgres import Postgres
from demo.processes import BIN, Processes, free_ports, inherited, until
from kuma.app.configuration.settings_file import load
from kuma.app.serving import server_certificate
from tools.hosts import Host, host

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "production.md").read_text()
UNITS = ROOT / "deploy" / "systemd"
OWN = ("/etc", "/opt", "/usr/local/bin", "/var/lib")
"""What a host of these tests has of its own: what is written there is gone with it."""
ADDRESS = "127.0.0.21"
"""Of the workload's host, which is this one."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def of_control_plane(database: str, instance: Postgres, ports: Ports) -> dict[str, str]:
    """The settings of a control plane as the page has them, but for where things are; this PostgreSQL has no TLS."""
    found = settings(blocks("env")[0])
    del found["KUMA_STORE_POSTGRES_TLS_CA_PATH"]
    return {
        **found,
        **instance.settings(database),
        "KUMA_STORE_POSTGRES_TLS_MODE": "disable",
        "KUMA_API_SERVER_HTTP_PORT": str(ports.api),
        "KUMA_API_SERVER_HTTPS_PORT": str(ports.https),
        "KUMA_DIAGNOSTICS_SERVER_PORT": str(ports.diagnostics),
        "KUMA_DP_SERVER_PORT": str(ports.dp),
        "KUMA_XDS_SERVER_PORT": str(ports.xds),
    }


class Machine:
    """A host with files of its own where the page writes some, and the programs in /opt/kuma."""

    def __init__(self, made: Host, home: Path) -> None:
        self._holder, self._home = made.holder.pid, home
        self.run("mount -t tmpfs -o mode=0755 tmpfs /mnt")
        for number, place in enumerate((*OWN, *_closed())):
            layers = f"lowerdir={place},upperdir=/mnt/{number}/upper,workdir=/mnt/{number}/work"
            self.run(f"mkdir -p /mnt/{number}/upper /mnt/{number}/work; mount -t overlay overlay -o {layers} {place}")
        for place in _closed():
            self.run(f"chmod o+x {place}")
        self.run(f"mkdir -p /opt/kuma/bin; mount --bind {BIN} /opt/kuma/bin; mkdir -p /etc/kuma/dp")
        self.run("echo 127.0.0.1 cp.example >> /etc/hosts")

    def command(self, text: str) -> list[str]:
        """The command that has a shell run another one there."""
        return ["nsenter", f"--mount=/proc/{self._holder}/ns/mnt", "bash", "-ec", f"cd {self._home}; {text}"]

    def run(self, text: str) -> str:
        """Run a command there as root, and return what it prints."""
        environment = {**inherited(), "HOME": str(self._home)}
        done = subprocess.run(self.command(text), env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """A file of root's there, which others may read."""
        self.run(f"printf %s {shlex.quote(text)} > {path}")

    def service(self, name: str, instance: str = "") -> list[str]:
        """The command that runs what a unit says, as its user and with its environment."""
        lines = (UNITS / name).read_text().replace("%i", instance).replace("%S", "/var/lib").splitlines()
        found = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        ran = f"runuser -u {found['User']} -- env {found['Environment']} {found['ExecStart']}"
        return self.command(f"set -a; . {found['EnvironmentFile']}; umask {found['UMask']}; exec {ran}")


def _closed() -> list[Path]:
    """Directories above the programs that other users of this machine may not look into: a user's home."""
    above = {place for path in (BIN, Path(sys.base_prefix)) for place in (path, *path.parents)}
    return sorted(place for place in above if not stat.S_IMODE(place.stat().st_mode) & stat.S_IXOTH)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with host() as made:
        yield Machine(made, tmp_path)


def test_every_command_of_the_page_works_and_both_programs_run_as_their_units_say(
    machine: Machine, postgres_instance: Postgres, tmp_path: Path
) -> None:
    ports = Ports.free()
    made = server_certificate.ensure(tmp_path, ["localhost", "cp.example"], datetime.now(UTC))
    for name in ("tls.crt", "tls.key", "ca.crt"):
        machine.run(f"cp {made.chain.parent / name} /etc/kuma/")
    _write_settings(machine, of_control_plane(postgres_instance.create("production"), postgres_instance, ports), ports)
    commands = [line for block in blocks("sh") for line in block.replace(":5682", f":{ports.https}").splitlines()]
    with Processes(tmp_path) as processes:
        for command in commands:
            machine.run(command)
            if "migrate up" in command:
                assert machine.run("stat -c '%U %a' /var/lib/kuma/kuma.db.key").split() == ["kuma", "600"]
                processes.start("kuma-cp", machine.service("kuma-cp.service"), {})
                until("it is ready", lambda: '"event": "ready"' in processes.tail("kuma-cp", 1000), processes)
                machine.run(f"kumactl config control-planes add --name here --address http://localhost:{ports.api}")
        assert get(f"http://127.0.0.1:{ports.diagnostics}/ready")[0] == 200
        processes.start("kuma-dp", machine.service("kuma-dp@.service", "backend"), {})
        until("the proxy runs", lambda: '"event": "the proxy runs"' in processes.tail("kuma-dp", 1000), processes)


def _write_settings(machine: Machine, of_control_plane: Mapping[str, str], ports: Ports) -> None:
    """The files that the page shows, with the ports of this test."""
    machine.write("/etc/kuma/kuma-cp.env", "".join(f"{name}={value}\n" for name, value in of_control_plane.items()))
    machine.write("/etc/kuma/dp/backend.env", blocks("env")[1].replace(":5678", f":{ports.dp}"))
    (admin,) = free_ports(1)
    described = blocks("yaml")[0].replace("10.0.0.21", ADDRESS).replace("9901", str(admin))
    machine.write("/etc/kuma/dp/backend.yaml", described)


def test_settings_of_the_page_are_taken() -> None:
    """As they stand: TLS towards the database is set up when it is connected to."""
    environment = settings(blocks("env")[0])
    found = load(None, environment)
    assert (found.store.type, found.store.postgres.tls.mode) == ("postgres", "verifyFull")


def test_settings_of_a_proxy_are_read_by_kuma_dp() -> None:
    environment = {**inherited(), "COLUMNS": "300", "TERM": "dumb"}
    shown = subprocess.run(
        [BIN / "kuma-dp", "run", "--help"], env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert [name for name in settings(blocks("env")[1]) if name not in shown] == []


def test_files_that_it_points_at_are_there() -> None:
    for path in re.findall(r"\]\(\.\./(deploy/[^)]+)\)", TEXT):
        assert (ROOT / path).is_file(), path
