"""The demo's mesh over three control planes: one PostgreSQL below them, one address before them."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demo.link import Link
from demo.mesh import DemoMesh, Unanswered, get
from demo.postgres import Postgres
from demo.processes import BIN, Processes, free_ports, until

COUNT = 3


def _host(number: int) -> str:
    """The address of a control plane: each has one of its own, as on machines of their own, and the same ports."""
    return f"127.0.0.{2 + number}"


def _front(number: int) -> str:
    """The address by which the balancer reaches a control plane."""
    return f"127.0.0.{12 + number}"


class SeveralControlPlanes(DemoMesh):
    """Proxies and `kumactl` know one address, where an Envoy passes connections on to whoever answers."""

    def __init__(
        self, home: Path, processes: Processes, database: Postgres, environments: Sequence[Mapping[str, str]] = ()
    ) -> None:
        """`environments` has what each control plane's has beside the settings."""
        super().__init__(home, processes)
        self.database = database
        self._environments = environments or [{}] * COUNT
        (self._balancer_admin,) = free_ports(1)
        self._name = database.create(f"demo_{secrets.token_hex(4)}")
        self._shared = database.settings(self._name)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._to_database = [Link(("127.0.0.1", 0), ("127.0.0.1", database.port)) for _ in range(COUNT)]
        ports = (self.ports.api, self.ports.dp, self.ports.xds, self.ports.diagnostics)
        self._from_balancer = [
            [Link((_front(number), port), (_host(number), port)) for port in ports] for number in range(COUNT)
        ]

    def start_control_plane(self) -> subprocess.Popen[bytes]:
        """All of them, and what stands before them; returns the first."""
        subprocess.run(
            [BIN / "kuma-cp", "migrate", "up"], env={**self.environment, **self._of(0)}, check=True, capture_output=True
        )
        for number in range(COUNT):
            self.start_instance(number)
        configuration = self.write("balancer.json", json.dumps(self._balancer()))
        self.processes.start(
            "balancer", [BIN / "envoy", "-c", str(configuration), "--disable-hot-restart", "--log-level", "warn"], {}
        )
        until("the balancer passes connections on", self._is_ready_behind_balancer, self.processes)
        address = f"http://localhost:{self.ports.api}"
        self.kumactl("config", "control-planes", "add", "--name", "demo", "--address", address, "--overwrite")
        return self._running[0]

    def start_instance(self, number: int) -> None:
        """`kuma-cp run` for one of them, until it is ready."""
        name = f"kuma-cp-{number}"
        self._running[number] = self.processes.start(
            name, [BIN / "kuma-cp", "run"], {**self.environment, **self._of(number), **self._environments[number]}
        )
        until(f"{name} is ready", lambda: self._answers(number), self.processes)

    def prepare_key(self) -> None:
        """`kuma-cp prepare-key`: all have one key file here, and so the next one."""
        environment = {**self.environment, **self._of(0)}
        subprocess.run([BIN / "kuma-cp", "prepare-key"], env=environment, check=True, capture_output=True)

    def _of(self, number: int) -> dict[str, str]:
        """Settings of one; they share the database, its key, and the certificate that the first one makes."""
        host, first = _host(number), self.home / "cp"
        interfaces = ("API_SERVER_HTTP_INTERFACE", "API_SERVER_HTTPS_INTERFACE", "DP_SERVER_INTERFACE")
        settings = {f"KUMA_{name}": host for name in (*interfaces, "DIAGNOSTICS_SERVER_INTERFACE")}
        settings |= {**self._shared, "KUMA_STORE_ENCRYPTION_KEY_FILE": str(first / "kuma.db.key")}
        settings["KUMA_STORE_POSTGRES_PORT"] = str(self._to_database[number].port)
        if number:
            files = {"CERT": "tls.crt", "KEY": "tls.key", "CA": "ca.crt"}
            settings |= {f"KUMA_GENERAL_TLS_{name}_FILE": str(first / file) for name, file in files.items()}
            settings["KUMA_GENERAL_WORK_DIR"] = str(self.home / f"cp-{number}")
        return settings

    def _answers(self, number: int) -> bool:
        try:
            return get(f"http://{_host(number)}:{self.ports.diagnostics}/ready")[0] == 200
        except Unanswered:
            return False

    def _is_ready_behind_balancer(self) -> bool:
        try:
            return get(f"http://127.0.0.1:{self.ports.api}/")[0] == 200
        except Unanswered:
            return False

    def instances(self) -> list[dict[str, Any]]:
        """What `/control-planes` says of all that are there, once it says so: the balancer may know nobody now."""
        return until("a control plane says who is there", self._instances, self.processes)

    def _instances(self) -> list[dict[str, Any]]:
        try:
            _, found = get(f"http://127.0.0.1:{self.ports.api}/control-planes")
        except Unanswered:
            return []
        return list(found.get("items", ()))

    def leader(self) -> int | None:
        """The number of the one that leads, if that is known now."""
        leaders = [one["address"].rpartition(":")[0] for one in self.instances() if one["leader"]]
        return next((number for number in self._running if _host(number) in leaders), None)

    def most_loaded(self) -> int:
        """The number of the one that serves the most proxies."""
        served = {one["address"].rpartition(":")[0]: one["proxies"] for one in self.instances()}
        return max(self._running, key=lambda number: served.get(_host(number), 0))

    def cut_from_database(self, number: int, *, whole: bool = False) -> None:
        """Nothing comes through between a control plane and the database, until it is whole again."""
        link = self._to_database[number]
        link.mend() if whole else link.cut()

    def cut_from_proxies(self, number: int, *, whole: bool = False) -> None:
        """Nothing comes through between the balancer and a control plane, until it is whole again."""
        for link in self._from_balancer[number]:
            link.mend() if whole else link.cut()

    def kill(self, number: int) -> None:
        """kill -9."""
        process = self._running.pop(number)
        self.processes.forget(process)
        process.kill()
        process.wait()

    def fail_database_over(self, *, read_only: bool) -> None:
        """All its connections are cut; new ones may write, or only read as at a standby."""
        name, mode = self._name, "on" if read_only else "off"
        self.database.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = {mode}")
        self.database.sql(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'")

    def pause(self, number: int) -> None:
        """SIGSTOP: it is there, and does nothing; it does not know it afterwards."""
        self._running[number].send_signal(signal.SIGSTOP)

    def go_on(self, number: int) -> None:
        """SIGCONT."""
        self._running[number].send_signal(signal.SIGCONT)

    def _balancer(self) -> dict[str, Any]:
        """An Envoy that passes TCP on, and asks each control plane on its diagnostics port whether it is alive."""
        passed_on = {"api": self.ports.api, "dp": self.ports.dp, "xds": self.ports.xds}
        return {
            "admin": {"address": _address("127.0.0.1", self._balancer_admin)},
            "static_resources": {
                "listeners": [_listener(name, port) for name, port in passed_on.items()],
                "clusters": [self._cluster(name, port) for name, port in passed_on.items()],
            },
        }

    def _cluster(self, name: str, port: int) -> dict[str, Any]:
        hosts = [_front(number) for number in range(COUNT)]
        endpoints = [
            {
                "endpoint": {
                    "address": _address(host, port),
                    "health_check_config": {"port_value": self.ports.diagnostics},
                }
            }
            for host in hosts
        ]
        health = {
            "timeout": "1s",
            "interval": "0.5s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 1,
            "http_health_check": {"path": "/healthy"},
        }
        return {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "health_checks": [health],
            "close_connections_on_host_health_failure": True,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(name: str, port: int) -> dict[str, Any]:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
        "max_connect_attempts": 5,
    }
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    return {"name": name, "address": _address("127.0.0.1", port), "filter_chains": [chain]}
