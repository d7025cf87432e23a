"""Entry points. A command takes a moment to load; Ctrl-C in that moment ends it as it does later: without a traceback.

Nothing but what is built in is imported here before that is arranged.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
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


class Loading:
    """Imports in its block as a command should: what is imported stays, so no garbage is looked for meanwhile.

    A sixth of the time of loading would go into that, and another sixth of kuma-dp's into `rich`: structlog and httpx
    load it wherever it is installed, for tracebacks and a command that are not used here. Help, which does use it,
    loads it when it is shown. Ctrl-C ends the process at once, and not the import with a traceback.
    """

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        gc.disable()
        self._without_rich = "rich" not in sys.modules
        if self._without_rich:
            sys.modules["rich"] = None  # type: ignore[assignment]  # to whoever imports it, it is not installed

    def __exit__(self, *_: object) -> None:
        if self._without_rich:
            del sys.modules["rich"]
        gc.freeze()
        gc.enable()
        signal.signal(signal.SIGINT, self._before)


def _run(module: str) -> None:
    """Load a command and run it; `output.run` makes Ctrl-C an exception again, to end things in order."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        _load(module).main()
    finally:
        gc.freeze()  # the interpreter looks for garbage as it ends: half a second for all that a control plane holds


def _load(module: str) -> ModuleType:
    with Loading():
        return importlib.import_module(module)
