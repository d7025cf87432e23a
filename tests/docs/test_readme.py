"""The README's tour, command by command, as a new user types it."""

import re
import shutil
from functools import partial
from pathlib import Path

from demo.mesh import Ports
from demo.processes import BIN, Processes, free_ports, until
from tests.fakes.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh tour\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SERVERS = ("kuma-cp run", "kuma-dp run", "python3 -m http.server")


def test_the_tour(tmp_path: Path) -> None:
    """What runs until it is stopped gets a terminal (a process) of its own; everything else has to succeed."""
    bash = shutil.which("bash") or "bash"
    text = "\n".join(BLOCK.findall((ROOT / "README.md").read_text()))
    ports = dict(zip(("18080", "8081", "18090", "8090", "10001", "9901", "9911"), free_ports(7), strict=True))
    control_plane = Ports(*free_ports(5))
    ports |= {"5678": control_plane.dp}
    text = re.sub(r"\b(\d{4,5})\b", lambda match: str(ports.get(match[1], match[1])), text)
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "KUMA_API_SERVER_HTTP_PORT": str(control_plane.api),
        "KUMA_API_SERVER_HTTPS_PORT": str(control_plane.https),
        "KUMA_DIAGNOSTICS_SERVER_PORT": str(control_plane.diagnostics),
        "KUMA_DP_SERVER_PORT": str(control_plane.dp),
        "KUMA_XDS_SERVER_PORT": str(control_plane.xds),
    }
    config = tmp_path / ".kumactl" / "config"
    config.parent.mkdir()
    config.write_text(
        f"{{controlPlanes: [{{name: l, coordinates: {{apiServer: {{url: 'http://localhost:{control_plane.api}'}}}}}}], "
        "contexts: [{name: l, controlPlane: l}], currentContext: l}"
    )
    with Processes(tmp_path) as processes:
        for number, command in enumerate(_commands(text)):
            line = f"exec {command}" if command.startswith(SERVERS) else command
            process = processes.start(f"{number}", [bash, "-c", f"cd {tmp_path} && {line}"], environment)
            if not command.startswith(SERVERS):
                processes.forget(process)
                status = process.wait(timeout=PATIENCE)
                assert status == 0, f"{command}: {processes.tail(str(number))}"
            elif command.startswith("kuma-cp"):
                ready = tmp_path / ".kuma" / "tls.crt"
                until("the control plane has started", ready.exists, processes)
                until("it has made the first mesh", partial(_says, processes, number, "mesh created"), processes)


def _says(processes: Processes, number: int, text: str) -> bool:
    return text in processes.tail(str(number))


def _commands(text: str) -> list[str]:
    """The commands in a piece of shell; a here-document belongs to its command."""
    found: list[str] = []
    for line in text.splitlines():
        if found and found[-1].count("EOF") == 1:
            found[-1] += f"\n{line}"
        elif line:
            found.append(line)
    return found
