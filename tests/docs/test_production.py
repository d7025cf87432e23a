"""What `docs/production.md` tells people to do, done: its settings and its commands, on this machine."""

import os
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from demo.mesh import Ports, get
from demo.postgres import Postgres
from demo.processes import BIN, Processes, inherited, until
from kuma.app.configuration.settings_file import load
from kuma.app.serving import server_certificate

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "production.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def here(text: str, files: Path, ports: Ports) -> str:
    """A piece of the page with the addresses and files of this test."""
    return text.replace("/etc/kuma", str(files)).replace("cp.example:5682", f"localhost:{ports.https}")


def of_control_plane(database: str, instance: Postgres, files: Path, ports: Ports) -> dict[str, str]:
    """The settings of a control plane as the page has them, but for where things are; this PostgreSQL has no TLS."""
    found = settings(here(blocks("env")[0], files, ports))
    del found["KUMA_STORE_POSTGRES_TLS_CA_PATH"]
    return {
        **found,
        **instance.settings(database),
        "KUMA_STORE_POSTGRES_TLS_MODE": "disable",
        "KUMA_GENERAL_WORK_DIR": str(files / "work"),
        "KUMA_API_SERVER_HTTP_PORT": str(ports.api),
        "KUMA_API_SERVER_HTTPS_PORT": str(ports.https),
        "KUMA_DIAGNOSTICS_SERVER_PORT": str(ports.diagnostics),
        "KUMA_DP_SERVER_PORT": str(ports.dp),
        "KUMA_XDS_SERVER_PORT": str(ports.xds),
    }


def run(command: str, directory: Path, environment: Mapping[str, str]) -> str:
    path = f"{BIN}:{os.environ['PATH']}"
    everything = {**inherited(), "HOME": str(directory), **environment, "PATH": path}
    done = subprocess.run(
        ["bash", "-c", command], cwd=directory, env=everything, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_command_of_the_page_works(postgres_instance: Postgres, tmp_path: Path) -> None:
    ports, database = Ports.free(), postgres_instance.create("production")
    made = server_certificate.ensure(tmp_path, ["localhost"], datetime.now(UTC))
    assert {made.chain.name, made.key.name, made.ca.name} == {"tls.crt", "tls.key", "ca.crt"}
    environment = of_control_plane(database, postgres_instance, tmp_path, ports)
    first, *rest = [line for block in blocks("sh") for line in here(block, tmp_path, ports).splitlines()]
    with Processes(tmp_path) as processes:
        run(first, tmp_path, environment)
        processes.start("kuma-cp", [BIN / "kuma-cp", "run"], environment)
        until("it is ready", lambda: '"event": "ready"' in processes.tail("kuma-cp", 1000), processes)
        local = f"kumactl config control-planes add --name here --address http://localhost:{ports.api}"
        run(local, tmp_path, {})
        for command in rest:
            run(command, tmp_path, environment if command.startswith("kuma-cp") else {})
        assert (tmp_path / "backend.token").read_text()
        answered, _ = get(f"http://127.0.0.1:{ports.diagnostics}/ready")
        assert answered == 200


def test_settings_of_the_page_are_taken() -> None:
    """As they stand: TLS towards the database is set up when it is connected to."""
    environment = settings(blocks("env")[0])
    found = load(None, environment)
    assert (found.store.type, found.store.postgres.tls.mode) == ("postgres", "verifyFull")


def test_settings_of_a_proxy_are_read_by_kuma_dp() -> None:
    shown = run("kuma-dp run --help", ROOT, {"COLUMNS": "300", "TERM": "dumb"})
    assert [name for name in settings(blocks("env")[1]) if name not in shown] == []


def test_files_that_it_points_at_are_there() -> None:
    for path in re.findall(r"\]\(\.\./(deploy/[^)]+)\)", TEXT):
        assert (ROOT / path).is_file(), path
