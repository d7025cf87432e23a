"""Starts etcd, kube-apiserver and kube-controller-manager on free ports of the loopback, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.processes import PATIENCE, Processes, free_ports, until
from tools.kubernetes.authority import Authority, Pair

CONTROLLERS = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "endpointslice-controller",
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
)
_ETCD, _API, _MANAGER = "etcd", "kube-apiserver", "kube-controller-manager"


class Cluster:
    """A Kubernetes API with nothing that runs Pods. Used as a context manager.

    `admin` is the kubeconfig of its administrator; `kubectl` runs commands as that user, and is among `programs`.
    """

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self._directory = directory.resolve()
        self._processes = Processes(self._directory)
        self._commands: dict[str, tuple[Sequence[str | Path], subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._processes)
            self._start()
            self._ending = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Kills all of it, as nobody asks for its data again: without its etcd an API server takes minutes to end."""
        for _command, process in self._commands.values():
            process.kill()
        self._ending.close()

    def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.ca = Authority(self._directory / "pki")
        peer, client, api, manager = free_ports(4)
        self.url = f"https://127.0.0.1:{api}"
        admin = self.ca.issue("admin", user="admin", groups=["system:masters"])
        self.admin = self.kubeconfig("admin", admin)
        self._ssl = ssl.create_default_context(cafile=self.ca.file)
        self._ssl.load_cert_chain(*admin)
        self._start_etcd(peer, client)
        signer = self.ca.issue("accounts", user="service-account-signer")
        self._start_api(client, api, signer)
        self._start_manager(manager, signer)

    def _start_etcd(self, peer: int, client: int) -> None:
        of_peers, of_clients = f"http://127.0.0.1:{peer}", f"http://127.0.0.1:{client}"
        self._spawn(
            _ETCD, f"--data-dir={self._directory}/etcd", f"--listen-client-urls={of_clients}",
            f"--advertise-client-urls={of_clients}", f"--listen-peer-urls={of_peers}",
            f"--initial-advertise-peer-urls={of_peers}", f"--initial-cluster=default={of_peers}",
            "--unsafe-no-fsync", "--log-level=warn",
        )  # fmt: skip
        self._wait(_ETCD, f"{of_clients}/health")

    def _start_api(self, etcd: int, port: int, signer: Pair) -> None:
        hosts = ["localhost", "kubernetes.default.svc", "127.0.0.1", "10.96.0.1"]
        server = self.ca.issue("apiserver", user="kube-apiserver", hosts=hosts)
        self._spawn(
            _API, f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1", f"--secure-port={port}",
            "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
            f"--tls-cert-file={server.certificate}", f"--tls-private-key-file={server.key}",
            f"--client-ca-file={self.ca.file}", "--authorization-mode=RBAC", "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={signer.certificate}", f"--service-account-signing-key-file={signer.key}",
            "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
        )  # fmt: skip
        self._wait(_API, f"{self.url}/readyz", self._ssl)

    def _start_manager(self, port: int, signer: Pair) -> None:
        user = self.kubeconfig(_MANAGER, self.ca.issue(_MANAGER, user="system:kube-controller-manager"))
        self._spawn(
            _MANAGER, f"--kubeconfig={user}", f"--authentication-kubeconfig={user}",
            f"--authorization-kubeconfig={user}", "--bind-address=127.0.0.1", f"--secure-port={port}",
            "--leader-elect=false", "--use-service-account-credentials=true",
            f"--service-account-private-key-file={signer.key}", f"--root-ca-file={self.ca.file}",
            "--controllers=" + ",".join(CONTROLLERS),
        )  # fmt: skip
        self._wait(_MANAGER, f"https://127.0.0.1:{port}/healthz", ssl._create_unverified_context())  # noqa: S323

    def kubeconfig(self, name: str, pair: Pair) -> Path:
        """Writes a kubeconfig of who has the certificate `pair`, and returns its path."""
        user = {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
        return self.kubeconfig_of(name, user)

    def kubeconfig_of(self, name: str, user: Mapping[str, Any]) -> Path:
        """Writes a kubeconfig of a user with credentials as a kubeconfig has them."""
        cluster = {"server": self.url, "certificate-authority": str(self.ca.file)}
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": name,
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }  # fmt: skip
        file = self._directory / f"{name}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(content))
        return file

    def kubectl(self, *arguments: str | Path, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator, with `text` as its input.

        Raises:
            AssertionError: it fails although `check` says that it should not; with what it said.
        """
        command: list[str | Path] = [self.programs / "kubectl", "--kubeconfig", self.admin, *arguments]
        home = {**os.environ, "HOME": str(self._directory)}  # for its caches
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=home)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr}")
        return done

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks the API server as the administrator, without a process of its own; a PATCH is a merge (RFC 7396).

        Raises:
            OSError: it does not answer; as `urllib.error.HTTPError` if its answer is an error.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, {"content-type": kind}, method=method)
        with urllib.request.urlopen(request, context=self._ssl, timeout=PATIENCE) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Kills the API server, and starts it again at the end of the block, with the same port and data."""
        command, process = self._commands[_API]
        self._processes.forget(process)
        process.kill()
        process.wait()
        try:
            yield
        finally:
            self._commands[_API] = command, self._processes.start(_API, command, {})
            self._wait(_API, f"{self.url}/readyz", self._ssl)

    def restart(self) -> None:
        """Kills the API server and starts it again."""
        with self.away():
            pass

    def _spawn(self, name: str, *arguments: str) -> None:
        command: list[str | Path] = [self.programs / name, *arguments]
        self._commands[name] = command, self._processes.start(name, command, {})

    def _wait(self, name: str, url: str, context: ssl.SSLContext | None = None) -> None:
        def answers() -> bool:
            try:
                with urllib.request.urlopen(url, context=context, timeout=10) as answer:
                    return bool(answer.status == 200)
            except (OSError, urllib.error.URLError):
                return False  # not up yet

        until(f"{name} answers at {url}", answers, self._processes)
