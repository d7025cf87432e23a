"""How long a command of kumactl takes to start, beside Python itself."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from demo.processes import BIN

_ROUNDS = 20
_FILE = "{type: Mesh, name: default}"


def main() -> None:
    """Prints the median of each command, in turns, so that a busy moment meets all of them."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "mesh.yaml"
        file.write_text(_FILE)
        kumactl = str(BIN / "kumactl")
        commands: dict[str, Sequence[str]] = {
            "Python alone": (sys.executable, "-c", "pass"),
            "kumactl --version": (kumactl, "--version"),
            "kumactl config view": (kumactl, "--no-config", "config", "view"),
            "kumactl get meshes, nobody answers": (kumactl, "--no-config", "get", "meshes"),
            "kumactl apply --dry-run=client": (kumactl, "--no-config", "apply", "--dry-run=client", "-f", str(file)),
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(_ROUNDS):
            for name, command in commands.items():
                took[name].append(_seconds(command))
    print("\nFrom the start of a command to its end")
    for name, seconds in took.items():
        print(f"  {name + ':':<36} {statistics.median(seconds) * 1000:6.0f} ms, fastest {min(seconds) * 1000:6.0f} ms")


def _seconds(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
