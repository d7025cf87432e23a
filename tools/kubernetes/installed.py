"""A control plane on the tests' cluster: installed as a user installs it, but that its program runs here.

Nothing runs Pods in this cluster. So the API server is told to call the webhooks at a port of this machine, and the
program has a token of the ServiceAccount that was installed: what that account may not do, it cannot do here either.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from demo.processes import BIN, PATIENCE, Processes, free_ports, is_free, until
from kuma.kubernetes.install import workload
from kuma.kubernetes.install.options import Options
from tools.kubernetes.cluster import Cluster

NAMESPACE = "kuma-system"
_PORTS = {
    "KUMA_API_SERVER_HTTP_PORT": "api",
    "KUMA_API_SERVER_HTTPS_PORT": "https",
    "KUMA_DP_SERVER_PORT": "dp",
    "KUMA_XDS_SERVER_PORT": "xds",
    "KUMA_DIAGNOSTICS_SERVER_PORT": "diagnostics",
    "KUMA_RUNTIME_KUBERNETES_ADMISSION_SERVER_PORT": "webhooks",
}


_INTERFACES = (
    "KUMA_API_SERVER_HTTP_INTERFACE",
    "KUMA_API_SERVER_HTTPS_INTERFACE",
    "KUMA_DP_SERVER_INTERFACE",
    "KUMA_DIAGNOSTICS_SERVER_INTERFACE",
    "KUMA_RUNTIME_KUBERNETES_ADMISSION_SERVER_ADDRESS",
)
_SERVICE = Path(__file__).parent / "service.py"


def kumactl(*arguments: str | Path, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs kumactl."""
    command = [str(BIN / "kumactl"), *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"kumactl {' '.join(map(str, arguments))}: {done.stderr}")
    return done


@dataclass
class Installed:
    """The control plane that was installed, as a process."""

    cluster: Cluster
    processes: Processes
    directory: Path
    ports: Mapping[str, int]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Beside those of the Deployment."""
    hosts: Sequence[str] = ("0.0.0.0",)
    """Where control planes listen that run beside each other, at the same ports."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    def start(
        self, name: str = "kuma-cp", ports: Mapping[str, int] | None = None, host: str = "", source: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Starts a control plane with the environment of the Deployment; `source` is the code of another version."""
        chosen = Options(namespace=NAMESPACE, version="test")
        environment = {
            **workload.environment(chosen),
            "KUMA_STORE_KUBERNETES_KUBECONFIG": str(self._account()),
            "KUMA_GENERAL_WORK_DIR": str(self.directory / name),
            "KUMA_GENERAL_LOG_FORMAT": "console",
            "KUMA_DEFAULTS_SKIP_MESH_CREATION": "true",
            **{variable: str((ports or self.ports)[port]) for variable, port in _PORTS.items()},
            **dict.fromkeys(_INTERFACES, host or self.hosts[0]),
            **self.settings,
            **({"PYTHONPATH": str(source)} if source else {}),
        }
        return self.processes.start(name, [BIN / "kuma-cp", "run"], environment)

    def run(self) -> None:
        """Starts the control plane, and returns once it serves and is asked."""
        self.process = self.start()
        self.serves()

    def serves(self) -> None:
        until("the control plane serves its API", lambda: self.get("/") is not None, self.processes)
        until("changes are judged", self.judges, self.processes)

    def judges(self) -> bool:
        """Tells whether the API server asks the webhooks: what they refuse is refused."""
        wrong = "apiVersion: kuma.io/v1alpha1\nkind: Mesh\nmetadata: {name: never}\nspec: {nonsense: 1}\n"
        tried = self.cluster.kubectl("apply", "--dry-run=server", "-f", "-", text=wrong, check=False)
        return "spec.nonsense: unknown field" in tried.stderr

    def start_beside(self, name: str, host: str, source: Path | None = None) -> subprocess.Popen[bytes]:
        """Starts another control plane, and returns once it judges changes."""
        started = self.start(name, host=host, source=source)
        until(f"{name} judges changes", lambda: not is_free(self.ports["webhooks"], host), self.processes)
        return started

    def log(self, name: str = "kuma-cp") -> str:
        """What a control plane has logged."""
        return (self.directory / f"{name}.log").read_text()

    def serve_at(self, host: str) -> None:
        """Has the control plane reached at this address, whichever of `hosts` leads: as by its Service."""
        ports = ",".join(map(str, self.ports.values()))
        self.processes.start(f"service-{host}", [sys.executable, _SERVICE, host, ",".join(self.hosts), ports], {})

    def kill(self) -> None:
        assert self.process is not None
        self.processes.forget(self.process)
        self.process.kill()
        self.process.wait()

    def get(self, path: str, token: str = "") -> Any:
        """What the REST API answers; None if it does not."""
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError):
            return None

    def _account(self) -> Path:
        token = self.cluster.kubectl(
            "create", "token", "kuma-control-plane", "-n", NAMESPACE, "--duration=24h"
        ).stdout  # fmt: skip
        return self.cluster.kubeconfig_of("control-plane", {"token": token.strip()})


@contextmanager
def installed(
    cluster: Cluster, directory: Path, hosts: Sequence[str] = (), settings: Mapping[str, str] | None = None
) -> Iterator[Installed]:
    """Installs a control plane and runs it; at the end it is uninstalled.

    With `hosts` it runs at the first of them, and others may run beside it.
    """
    ports = dict(zip(_PORTS.values(), free_ports(len(_PORTS)), strict=True))
    manifests = [_called_here(found, ports["webhooks"]) for found in yaml.safe_load_all(
        kumactl("install", "control-plane").stdout
    )]  # fmt: skip
    try:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=yaml.safe_dump_all(manifests))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
        with Processes(directory) as processes:
            found = Installed(cluster, processes, directory, ports, settings or {})
            if hosts:
                found.hosts = hosts
                found.serve_at("127.0.0.1")
            found.run()
            yield found
    finally:  # webhooks that nobody answers would keep all later tests from writing
        removal = kumactl("uninstall", "control-plane").stdout
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", text=removal)


def _called_here(found: dict[str, Any], port: int) -> dict[str, Any]:
    for webhook in found.get("webhooks", ()):
        webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{webhook['clientConfig']['service']['path']}"}
    return found
