"""The signals that ask a program to end in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def on_end(handler: Callable[[], object]) -> None:
    """Call `handler` on SIGTERM, on Ctrl-C, and when the terminal closes, unless started with nohup."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, handler)


def on_reload(handler: Callable[[], object]) -> None:
    """Call `handler` on SIGHUP, for a program without a terminal that could close."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, handler)
