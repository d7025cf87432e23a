"""Hosts of their own: what workloads send and are sent goes through their proxies, and nobody has to be told.

`web` and `backend` are in the mesh, `outsider` is not; `cp` runs the control plane. All calls are made with curl.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from demo.processes import BIN, Processes, until
from tools.hosts import Host, network

UID, SOMEBODY = 5678, 1000
HTTP, SECOND, EXCLUDED, GREETING = 8080, 9090, 6060, 7070
"""Ports of every workload. `backend` says in its Dataplane that it has the first and the last one."""
ADMINISTRATION, READINESS = 9901, 9902
"""Ports of every proxy."""
KUMACTL = BIN / "kumactl"
REDIRECTED = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}
PERMISSION = {
    "type": "TrafficPermission", "mesh": "default", "name": "all",
    "sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "*"}}],
}  # fmt: skip


class Mesh:
    """A control plane and two proxies, each in its host."""

    def __init__(self, hosts: Mapping[str, Host], processes: Processes, home: Path) -> None:
        self.hosts, self.processes, self.home = hosts, processes, home

    def start_control_plane(self) -> None:
        settings = {
            "KUMA_GENERAL_WORK_DIR": str(self.home / "cp"),
            "KUMA_DP_SERVER_INTERFACE": self.hosts["cp"].address,
            "HOME": str(self.home),
        }
        self._start("cp", "kuma-cp", BIN / "kuma-cp", "run", settings=settings)
        until("the control plane answers", lambda: self._api("/meshes", fails=True), self.processes)
        shutil.copy(self.home / "cp" / "ca.crt", self.home / "ca.crt")

    def _start(self, host: str, name: str, *argv: Any, uid: int = 0, settings: Mapping[str, str] | None = None) -> None:
        self.processes.start(name, self.hosts[host].command(*argv, uid=uid), settings or {})

    def _api(self, path: str, *arguments: str, fails: bool = False) -> str:
        how = "-sf" if fails else "-sSf"
        return self.hosts["cp"].run("curl", how, "-m", "60", *arguments, f"localhost:5681{path}", check=not fails)

    def apply(self, path: str, resource: Mapping[str, Any]) -> None:
        self._api(path, "-X", "PUT", "-H", "content-type: application/json", "-d", json.dumps(resource))

    def mesh(self, mode: str = "STRICT", passthrough: bool = True) -> None:
        backend = {"name": "ca-1", "type": "builtin", "mode": mode}
        networking = {"outbound": {"passthrough": passthrough}}
        mtls = {"enabledBackend": "ca-1", "backends": [backend]}
        self.apply("/meshes/default", {"type": "Mesh", "name": "default", "mtls": mtls, "networking": networking})

    def start_workloads(self) -> None:
        script = Path(__file__).parents[2] / "tools" / "everything.py"
        for name in ("web", "backend", "outsider"):
            ports = (f"{HTTP},{SECOND},{EXCLUDED}", str(GREETING))
            self._start(name, f"{name}-app", sys.executable, script, *ports, uid=SOMEBODY)
        for name in ("web", "backend", "outsider"):
            self._serves(name)

    def _serves(self, name: str) -> None:
        until(f"{name} serves", lambda: "ready" in self.processes.tail(f"{name}-app"), self.processes)

    def start_proxy(self, name: str, networking: Mapping[str, Any]) -> None:
        spec = {"address": self.hosts[name].address, "transparentProxying": REDIRECTED, **networking}
        file = self.home / f"{name}.json"
        file.write_text(json.dumps({"type": "Dataplane", "mesh": "default", "name": name, "networking": spec}))
        asked = json.dumps({"name": name, "mesh": "default", "validFor": "24h"})
        token = self._api("/tokens/dataplane", "-X", "POST", "-H", "content-type: application/json", "-d", asked)
        (self.home / f"{name}-token").write_text(token)
        os.chown(self.home / f"{name}-token", UID, UID)
        self._start(
            name, f"kuma-dp-{name}", BIN / "kuma-dp", "run", "--cp-address=https://10.99.0.1:5678",
            f"--ca-cert-file={self.home / 'ca.crt'}", f"--dataplane-file={file}",
            f"--dataplane-token-file={self.home / f'{name}-token'}", "--concurrency=1", "--drain-time=1s",
            uid=UID, settings={"HOME": str(self.home), "TMPDIR": str(self.home / "tmp")},
        )  # fmt: skip

    def call(self, caller: str, url: str) -> str:
        """What a workload is answered; empty if its connection is refused, or closed without an answer.

        By `telnet://` it only listens to what the other side says.
        """
        scheme, _, place = url.partition("://")
        asking: tuple[str, ...] = ("curl", "-sf", "-g", url)
        if scheme == "telnet":
            asking = ("bash", "-c", f"cat < /dev/tcp/{place.replace(':', '/')} 2> /dev/null")
        return self.hosts[caller].run("timeout", "60", *asking, uid=SOMEBODY, check=False)

    def reaches(self, caller: str, url: str) -> str:
        """The answer, once there is one."""
        return until(f"{caller} reaches {url}", lambda: self.call(caller, url) or None, self.processes)

    def is_refused(self, caller: str, url: str) -> None:
        """Return once a call is refused."""
        until(f"{caller} is refused at {url}", lambda: not self.call(caller, url) or None, self.processes)


def url(host: str, port: int = HTTP, scheme: str = "http") -> str:
    number = {"web": 2, "backend": 3, "outsider": 4}[host]
    return f"{scheme}://10.99.0.{number}:{port}"


V6 = f"http://[fd99::3]:{HTTP}"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Mesh]:
    # Another user reads there, which it may not in the directories of pytest.
    with tempfile.TemporaryDirectory() as made, network(("cp", "web", "backend", "outsider")) as hosts:
        home = Path(made)
        home.chmod(0o755)
        (home / "tmp").mkdir()
        os.chown(home / "tmp", UID, UID)
        with Processes(home) as processes:
            found = Mesh(hosts, processes, home)
            found.start_control_plane()
            found.mesh()
            found.apply("/meshes/default/traffic-permissions/all", PERMISSION)
            found.start_workloads()
            for name in ("web", "backend"):
                install = (KUMACTL, "install", "transparent-proxy", f"--kuma-dp-uid={UID}")
                hosts[name].run(*install, f"--exclude-inbound-ports={EXCLUDED}")
            found.start_proxy("web", {"inbound": [{"port": HTTP, "tags": _tags("web", "http")}]})
            found.start_proxy(
                "backend",
                {
                    "inbound": [
                        {"port": HTTP, "tags": _tags("backend", "http")},
                        {"port": HTTP, "address": hosts["backend"].address6, "tags": _tags("backend", "http")},
                        {"port": GREETING, "tags": _tags("greeter", "tcp")},
                    ],
                    "outbound": [{"port": 10001, "tags": {"kuma.io/service": "greeter"}}],
                },
            )
            yield found


def _tags(service: str, protocol: str) -> Mapping[str, str]:
    return {"kuma.io/service": service, "kuma.io/protocol": protocol}


def shown(answer: str) -> str:
    """Who called, by the header that the proxy of a workload tells it in; empty if nobody was asked."""
    lines = [line for line in answer.lower().splitlines() if line.startswith("x-forwarded-client-cert:")]
    return lines[0] if lines else ""


def test_a_plain_call_of_another_host_goes_by_mutual_tls(mesh: Mesh) -> None:
    answer = until(
        "web's certificate is shown", lambda: shown(found := mesh.call("web", url("backend"))) and found, mesh.processes
    )
    assert "uri=spiffe://default/web" in shown(answer)
    assert answer.startswith("from 127.0.0.6\n")
    answer = until("over IPv6", lambda: shown(found := mesh.call("web", V6)) and found, mesh.processes)
    assert "uri=spiffe://default/web" in shown(answer)
    assert answer.startswith("from ::6\n")


def test_a_server_that_speaks_first_is_heard(mesh: Mesh) -> None:
    assert mesh.reaches("web", url("backend", GREETING, "telnet")) == "hello\n"


def test_what_stays_on_a_machine_is_not_redirected_but_calls_of_the_mesh_are(mesh: Mesh) -> None:
    own = mesh.reaches("backend", url("backend"))
    assert own.startswith("from 10.99.0.3\n")
    assert not shown(own)
    assert mesh.reaches("backend", "http://127.0.0.1:8080").startswith("from 127.0.0.1\n")
    assert mesh.reaches("backend", "telnet://127.0.0.1:10001") == "hello\n"


def test_what_is_outside_the_mesh_is_reached_as_ever(mesh: Mesh) -> None:
    assert mesh.reaches("web", url("outsider")).startswith("from 10.99.0.2\n")


def test_strict_refuses_plaintext_at_inbounds_and_at_all_other_ports_that_are_not_excluded(mesh: Mesh) -> None:
    for place in (url("backend"), V6, url("backend", SECOND), f"http://[fd99::3]:{SECOND}"):
        mesh.is_refused("outsider", place)
    mesh.is_refused("outsider", url("backend", GREETING))
    assert mesh.reaches("outsider", url("backend", EXCLUDED)).startswith("from 10.99.0.4\n")
    # Nobody calls through a proxy of others, or has it call itself.
    for port in (15001, 15006, 10001):
        mesh.is_refused("outsider", url("backend", port))
    for port in (15001, 15006):
        mesh.is_refused("backend", f"http://127.0.0.1:{port}")
        mesh.is_refused("backend", url("backend", port))
    administration_is_out_of_reach(mesh)
    assert mesh.reaches("web", url("backend"))


def administration_is_out_of_reach(mesh: Mesh) -> None:
    """Envoy's administration and `kuma-dp`'s readiness are reached on their own machine, by neither of the others."""
    for port in (ADMINISTRATION, READINESS):
        assert mesh.reaches("backend", f"http://127.0.0.1:{port}/ready")
        for caller in ("web", "outsider"):
            for place in (url("backend", port), f"http://[fd99::3]:{port}"):
                mesh.is_refused(caller, f"{place}/ready")


def test_without_passthrough_nothing_outside_the_mesh_is_reached(mesh: Mesh) -> None:
    mesh.mesh(passthrough=False)
    mesh.is_refused("web", url("outsider"))
    assert shown(mesh.reaches("web", url("backend")))
    mesh.mesh()
    assert mesh.reaches("web", url("outsider"))


def test_permissive_lets_plaintext_in_and_strict_does_not_again(mesh: Mesh) -> None:
    mesh.mesh("PERMISSIVE")
    for place in (url("backend"), V6, url("backend", SECOND), f"http://[fd99::3]:{SECOND}"):
        assert not shown(mesh.reaches("outsider", place))
    assert mesh.reaches("outsider", url("backend", GREETING, "telnet")) == "hello\n"
    for port in (15001, 15006):
        mesh.is_refused("outsider", url("backend", port))
    administration_is_out_of_reach(mesh)
    assert shown(mesh.reaches("web", url("backend")))
    mesh.mesh()
    for place in (url("backend"), V6, url("backend", SECOND)):
        mesh.is_refused("outsider", place)


def test_rules_are_changed_in_place_and_without_them_all_is_as_before(mesh: Mesh) -> None:
    backend = mesh.hosts["backend"]
    backend.run(KUMACTL, "install", "transparent-proxy", f"--kuma-dp-uid={UID}")
    mesh.is_refused("outsider", url("backend", EXCLUDED))
    assert shown(mesh.reaches("web", url("backend")))
    backend.run(KUMACTL, "uninstall", "transparent-proxy")
    for place in (url("backend", SECOND), url("backend", EXCLUDED), V6):
        assert mesh.reaches("outsider", place)
