"""Control planes that `kumactl` has been told of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.mesh import DemoMesh
from demo.processes import Processes


@contextmanager
def known_to_kumactl(home: Path) -> Iterator[DemoMesh]:
    """A control plane with its files in `home`, until the end of the block."""
    with Processes(home) as processes:
        found = DemoMesh(home, processes)
        found.start_control_plane()
        add(found)
        yield found


def add(mesh: DemoMesh) -> None:
    """Have `kumactl` use a control plane from now on."""
    address = f"http://localhost:{mesh.ports.api}"
    mesh.kumactl("config", "control-planes", "add", "--name", "test", "--address", address)
