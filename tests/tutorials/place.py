"""A machine on which tutorials are followed: their commands are typed into a shell, one control plane runs for all."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from demo.mesh import Ports
from demo.processes import BIN, Processes, free_ports, until
from tests.fakes.patience import PATIENCE

COUNTER = Path(__file__).with_name("counter.py")
BASH = shutil.which("bash") or "bash"


class Place:
    """A home directory, ports that nobody else has, and what has been started."""

    def __init__(self, home: Path, processes: Processes) -> None:
        self.home = home
        self._processes = processes
        self.ports = Ports.free()
        self._number = 0
        self.variables = {
            "HOME": str(home),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "KUMA_API_SERVER_HTTP_PORT": str(self.ports.api),
            "KUMA_API_SERVER_HTTPS_PORT": str(self.ports.https),
            "KUMA_DIAGNOSTICS_SERVER_PORT": str(self.ports.diagnostics),
            "KUMA_DP_SERVER_PORT": str(self.ports.dp),
            "KUMA_XDS_SERVER_PORT": str(self.ports.xds),
            "API": f"http://localhost:{self.ports.api}",
            "API_HTTPS": f"https://localhost:{self.ports.https}",
            "CP": f"https://localhost:{self.ports.dp}",
            "NO_COLOR": "1",
        }

    def take(self, *names: str) -> None:
        """Have the shell know free ports by these names."""
        self.variables |= dict(zip(names, map(str, free_ports(len(names))), strict=True))

    def port(self, name: str) -> int:
        return int(self.variables[name])

    def type(self, text: str, **more: str) -> str:
        """What commands print that succeed."""
        done = self.tried(text, **more)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def shows(self, text: str, holds: Callable[[str], object]) -> str:
        """What a command prints once it `holds`: what a proxy begins, the control plane may show a moment later."""
        return str(until(f"{text} shows it", partial(self._printed, text, holds), self._processes))

    def _printed(self, text: str, holds: Callable[[str], object]) -> str | None:
        printed = self.type(text)
        return printed if holds(printed) else None

    def tried(self, text: str, **more: str) -> subprocess.CompletedProcess[str]:
        """The end of commands that may fail."""
        environment = {**os.environ, **self.variables, **more}
        return subprocess.run(
            [BASH, "-ec", text], cwd=self.home, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )

    def terminal(self, text: str, environment: Mapping[str, str] | None = None, *, says: str = "") -> str:
        """A command that goes on, in a terminal of its own; returns once it `says` something."""
        self._number += 1
        name = f"{self._number}"
        command = [BASH, "-c", f"cd {self.home} && exec {text.strip()}"]
        self._processes.start(name, command, {**self.variables, **(environment or {})})
        if says:
            until(f"{text} says {says}", lambda: says in self._processes.tail(name, 1000), self._processes)
        return name

    def said(self, name: str) -> str:
        """What a terminal shows."""
        return self._processes.tail(name, 1000)

    def workload(self, *arguments: str) -> None:
        """One of the programs of `counter.py`."""
        self.terminal(f"{sys.executable} {COUNTER} {' '.join(arguments)}")

    def gets(self, port: str, *, status: int = 200) -> str:
        """The body of an answer, once it comes with this status."""
        url = f"http://127.0.0.1:{self.variables[port]}/"
        return until(f"{status} at {url}", partial(self._answer, url, status), self._processes)[0]

    def reads(self, port: str, holds: Callable[[str], object], path: str = "/") -> str:
        """The body of an answer with status 200, once it `holds`."""
        url = f"http://127.0.0.1:{self.variables[port]}{path}"
        return str(until(f"{url} holds it", partial(self._body, url, holds), self._processes))

    def _body(self, url: str, holds: Callable[[str], object]) -> str | None:
        found = self._answer(url, 200)
        return found[0] if found and holds(found[0]) else None

    def _answer(self, url: str, status: int) -> tuple[str] | None:
        done = self.tried(f"curl --silent --max-time 10 --output - --write-out '\\n%{{http_code}}' {url} || true")
        body, _, found = done.stdout.rpartition("\n")
        return (body,) if found == str(status) else None


@contextlib.contextmanager
def place(home: Path) -> Iterator[Place]:
    """A place with nothing in it, until the end of the block."""
    with Processes(home) as processes:
        yield Place(home, processes)
