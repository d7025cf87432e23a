"""Entry points. A command takes a moment to load; Ctrl-C in that moment ends it as it does later: without a traceback.

Nothing but what is built in is imported here before that is arranged.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
from types import ModuleType


def control_plane() -> None:
    """`kuma-cp`. What gRPC would write itself is in no form of our log, and a line for each handshake that fails."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _run("kuma.app.kuma_cp")


def data_plane() -> None:
    """`kuma-dp`."""
    _run("kuma.agent.kuma_dp")


def kumactl() -> None:
    """`kumactl`."""
    _run("kuma.kumactl.main")


def worker() -> None:
    """One of several processes of `kuma-cp run`."""
    _run("kuma.app.workers.process")


def _run(module: str) -> None:
    """Load a command and run it; `output.run` makes Ctrl-C an exception again, to end things in order."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        _load(module).main()
    finally:
        gc.freeze()  # the interpreter looks for garbage as it ends: half a second for all that a control plane holds


def _load(module: str) -> ModuleType:
    """Import a module with all that it needs, without looking for garbage meanwhile: what is imported stays.

    A sixth of the time of loading would go into that.
    """
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()
