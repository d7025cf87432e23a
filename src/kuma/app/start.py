"""Entry points. A command takes a moment to load; Ctrl-C in that moment ends it as it does later: without a traceback.

Nothing but what is built in is imported here before that is arranged.
"""

from __future__ import annotations

import importlib
import os
import signal


def control_plane() -> None:
    """`kuma-cp`."""
    _run("kuma.app.kuma_cp")


def data_plane() -> None:
    """`kuma-dp`."""
    _run("kuma.agent.kuma_dp")


def kumactl() -> None:
    """`kumactl`."""
    _run("kuma.kumactl.main")


def _run(module: str) -> None:
    """Load a command and run it; `output.run` makes Ctrl-C an exception again, to end things in order."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    importlib.import_module(module).main()
