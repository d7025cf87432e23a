"""The order in which tests run, and which of them one process runs together: hooks of pytest and xdist."""

from __future__ import annotations

import functools
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from demo.mesh import DemoMesh
from demo.processes import BIN, Processes
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.control_plane import running
from tests.fakes.several import several
from tests.fakes.stores import open_store
from tests.tutorials.place import Place
from tools.kubernetes import build

_LONG = {"console", "demo", "integration", "tutorials"}
"""Folders whose files take longest: they run whole programs, or a browser."""
_LONGEST = {"test_pods_that_run.py", "test_control_plane_on_kubernetes.py", "test_ha_faults.py"}
"""Files of few tests that take minutes; one of them that comes last is all that still runs."""
_STARTERS = (running, several, Processes, DemoMesh, Place, BIN, open_sqlite, open_store, subprocess)
"""Start control planes, stores, proxies and commands; tests that have one of them in their module are slow."""
_COMMANDS = "kumactl"
"""So does what has this name, in whichever way it runs the command."""
_FIXTURES = {"cp", "cluster", "manager", "postgres", "postgres_instance"}
"""So do these fixtures, wherever they come from: a control plane, a cluster, the manager of a store, a database."""
_CLUSTERS = "kubernetes"
"""Folder of tests that share the Kubernetes API that their process starts, for half a minute of CPU."""
_OF_ONE_CLUSTER = {
    "test_control_plane_on_kubernetes.py", "test_store_over_kubernetes.py", "test_injected_pods.py",
    "test_pods_in_a_cluster.py",
}  # fmt: skip
"""Files that take half of the time of that folder."""
_IS_BUILT = "kubernetes_is_built"


class FilesTogether(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a process whole files, and two of all processes half of the files that need a Kubernetes API each."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(super()._split_scope(nodeid))
        if not _needs_cluster(file):
            return str(file)
        return f"{_CLUSTERS} {'first' if file.name in _OF_ONE_CLUSTER else 'second'} half"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether | None:
    """Returns our own scheduler in place of xdist's for whole files."""
    return FilesTogether(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a process whether the Kubernetes API has been built: all have to put tests in the same order."""
    node.workerinput[_IS_BUILT] = _is_built()


@functools.cache
def _is_built() -> bool:
    return build.is_built()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts whole programs as `system`, and begin with that: the longest files come first."""
    for item in items:
        if _starts_programs(item):
            item.add_marker("system")
    sizes = Counter(item.path for item in items)
    is_built = getattr(config, "workerinput", {_IS_BUILT: _is_built()})[_IS_BUILT]
    items.sort(key=lambda item: _turn(item, sizes[item.path], is_built=is_built))


def _turn(item: pytest.Item, size: int, *, is_built: bool) -> tuple[bool, bool, bool, bool, int]:
    """Returns when a test of a file of this size comes, so that no process is left with a long file at the end.

    What needs a Kubernetes API is first, since it waits for most of its time; but last if it may still be being built.
    """
    is_fast = item.get_closest_marker("system") is None
    needs_cluster = _needs_cluster(item.path.relative_to(item.config.rootpath))
    is_long = not _LONG.isdisjoint(item.path.relative_to(item.config.rootpath).parts)
    return needs_cluster != is_built, item.path.name not in _LONGEST, not is_long, is_fast, -size


def _needs_cluster(file: Path) -> bool:
    return file.parts[:2] == ("tests", _CLUSTERS)


def _starts_programs(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    found = vars(item.module)
    starts = _COMMANDS in found or any(value is starter for value in found.values() for starter in _STARTERS)
    return starts or not _FIXTURES.isdisjoint(item.fixturenames)
