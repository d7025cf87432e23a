"""The demo's mesh: a control plane, two workloads and their proxies, on free ports of the loopback."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, ClassVar

from demo import resources
from demo.processes import BIN, PATIENCE, Failed, Processes, free_ports, inherited, is_free, reserve, until

_STANDARD = {"api": 5681, "https": 5682, "diagnostics": 5680, "dp": 5678, "xds": 5677}


@dataclass(frozen=True)
class Ports:
    """The control plane's ports."""

    api: int
    https: int
    diagnostics: int
    dp: int
    xds: int

    @classmethod
    def free(cls) -> Ports:
        """Picks ports that nobody else uses, nor takes while the control plane is down for a moment."""
        return cls(*free_ports(len(_STANDARD)))

    @classmethod
    def standard(cls) -> Ports:
        """Returns the standard ports, or others if those are taken."""
        is_ours = all(is_free(port) for port in _STANDARD.values()) and reserve("standard ports")
        return cls(**_STANDARD) if is_ours else cls.free()

    @property
    def is_standard(self) -> bool:
        return self.api == _STANDARD["api"]


class Unanswered(Failed):
    """A request was not answered at all."""


class DemoMesh:
    """Context of the demo's steps. All state is in `home`; the commands are the ones that users type."""

    TCP_HANDSHAKES: ClassVar[str] = "^cluster.backend_tcp.ssl.handshake$"
    """The statistic of web's proxy that counts its handshakes with backend's TCP inbound."""

    def __init__(self, home: Path, processes: Processes, ports: Ports | None = None, programs: Path = BIN) -> None:
        """`programs` is where the commands are."""
        self.home = home
        self._programs = programs
        self.processes = processes
        self.ports = ports or Ports.free()
        self._is_known = False
        self.backend_in, self.backend_app, self.web_in, self.web_app, self.web_out, admin_1, admin_2 = free_ports(7)
        self.backend_tcp_in, self.web_tcp_out = free_ports(2)
        self._admin = {"backend": admin_1, "web": admin_2}
        self.environment = {
            "HOME": str(home),
            "KUMA_GENERAL_WORK_DIR": str(home / "cp"),
            "KUMA_API_SERVER_HTTP_PORT": str(self.ports.api),
            "KUMA_API_SERVER_HTTPS_PORT": str(self.ports.https),
            "KUMA_DIAGNOSTICS_SERVER_PORT": str(self.ports.diagnostics),
            "KUMA_DP_SERVER_PORT": str(self.ports.dp),
            "KUMA_XDS_SERVER_PORT": str(self.ports.xds),
            "NO_COLOR": "1",
        }

    def start_control_plane(self) -> subprocess.Popen[bytes]:
        """`kuma-cp run`, until it is ready."""
        process = self.processes.start("kuma-cp", [self._programs / "kuma-cp", "run"], self.environment)
        until("the control plane is ready", self._is_ready, self.processes)
        if not (self.ports.is_standard or self._is_known):
            address = f"http://localhost:{self.ports.api}"
            self.kumactl("config", "control-planes", "add", "--name", "demo", "--address", address, "--overwrite")
            self._is_known = True
        return process

    def start_workloads(self) -> None:
        """The two services themselves; `web` calls `backend` through its proxy."""
        workload = [sys.executable, "-m", "demo.workload"]
        root = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        self.processes.start("backend-app", [*workload, "backend", str(self.backend_app)], root)
        upstream = f"http://127.0.0.1:{self.web_out}/"
        self.processes.start("web-app", [*workload, "web", str(self.web_app), upstream], root)

    def write(self, name: str, text: str) -> Path:
        """A file in the demo's directory."""
        path = self.home / name
        path.write_text(text)
        return path

    def write_dataplanes(self, backend: str = resources.BACKEND, web: str = resources.WEB) -> None:
        """`backend.yaml` and `web.yaml`."""
        backend = backend.format(
            admin=self._admin["backend"], inbound=self.backend_in, inbound_tcp=self.backend_tcp_in,
            workload=self.backend_app,
        )  # fmt: skip
        web = web.format(
            admin=self._admin["web"], inbound=self.web_in, workload=self.web_app, outbound=self.web_out,
            outbound_tcp=self.web_tcp_out,
        )  # fmt: skip
        self.write("backend.yaml", backend)
        self.write("web.yaml", web)

    def token(self, service: str) -> None:
        """`kumactl generate dataplane-token`, into a file that only its owner reads."""
        token = self.kumactl("generate", "dataplane-token", "--name", f"{service}-01", "--mesh", "default", *_DAY)
        path = self.home / f"{service}-token"
        path.touch(mode=0o600)
        path.write_text(token)

    def proxy_command(self, service: str) -> list[str]:
        """`kuma-dp run …` for a service."""
        return [
            "kuma-dp",
            "run",
            f"--cp-address=https://localhost:{self.ports.dp}",
            f"--dataplane-file={service}.yaml",
            f"--dataplane-token-file={service}-token",
            "--ca-cert-file=cp/ca.crt",
        ]

    def start_proxy(self, service: str) -> subprocess.Popen[bytes]:
        """`kuma-dp run`."""
        program, *arguments = self.proxy_command(service)
        paths = [a.replace("=", f"={self.home}/", 1) if "-file=" in a else a for a in arguments]
        return self.processes.start(f"kuma-dp-{service}", [self._programs / program, *paths], self.environment)

    def kumactl(self, *arguments: str, stdin: str | None = None, timeout: float = PATIENCE) -> str:
        """Runs a `kumactl` command and returns its output.

        Raises:
            Failed: it did not end well.
        """
        try:
            done = self._run(arguments, stdin, timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{shlex.join(['kumactl', *arguments])}: not done within {timeout:.0f} seconds") from None
        if done.returncode:
            raise Failed(f"{shlex.join(['kumactl', *arguments])}: {done.stderr.strip()}")
        return done.stdout + (f"\n{done.stderr.strip()}" if done.stderr.strip() else "")

    def _run(self, arguments: Sequence[str], stdin: str | None, timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._programs / "kumactl", *arguments],
            cwd=self.home,
            env={**inherited(), **self.environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def call(self) -> tuple[int, Mapping[str, Any]]:
        """Have `web` call `backend` once: the status and what came back."""
        return get(f"http://127.0.0.1:{self.web_app}/")

    def insight(self, name: str) -> Mapping[str, Any]:
        """The certificate of a Dataplane's proxy, as the control plane knows it."""
        path = f"/meshes/default/dataplanes+insights/{name}"
        _, overview = get(f"http://127.0.0.1:{self.ports.api}{path}")
        found: Mapping[str, Any] = overview.get("dataplaneInsight", {}).get("mTLS", {})
        return found

    def handshakes(self, service: str, stats: str = "ssl.handshake$") -> int:
        """Returns how many TLS handshakes the proxy of a service has completed, by its own count."""
        _, body = read(f"http://127.0.0.1:{self._admin[service]}/stats?filter={stats}")
        return sum(int(line.rpartition(b": ")[2]) for line in body.splitlines())

    def _is_ready(self) -> bool:
        try:
            return get(f"http://127.0.0.1:{self.ports.diagnostics}/ready")[0] == 200
        except Unanswered:
            return False


_DAY = ("--valid-for", "24h")


def get(url: str) -> tuple[int, Mapping[str, Any]]:
    """GET over a new connection: the status and the JSON that came back."""
    status, body = read(url)
    return status, _json(body)


def read(url: str) -> tuple[int, bytes]:
    """GET over a new connection, and no proxy of the user's: the status and the body.

    Raises:
        Unanswered: there is no answer.
    """
    try:
        try:
            with _DIRECT.open(url, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
    except (OSError, HTTPException) as error:
        raise Unanswered(f"{url}: {str(error) or type(error).__name__}") from None


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
