"""Processes that end with the program that started them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
BIN = Path(sys.executable).parent
PATIENCE = 120.0
"""Seconds after which something is given up that should happen soon: far more than it takes on a busy machine."""


class Failed(Exception):
    """Something did not happen that should have; the text says what, and where to look."""


class Processes:
    """Started in order, ended in reverse. Output goes to one log file per process."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, argv: Sequence[str | Path], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a program of this project (or any) under `name`."""
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited(), **environment},
                start_new_session=True,  # a Ctrl-C on the terminal is ours to pass on, in order
                preexec_fn=_end_with_parent,
            )
        self._running.append((name, process))
        return process

    def check(self) -> None:
        """Raises if a process has ended by itself.

        Raises:
            Failed: one has; with the end of its log.
        """
        for name, process in self._running:
            if process.poll() is not None:
                raise Failed(f"{name} ended with status {process.returncode}:\n{self.tail(name)}")

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines that a process has written."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join((self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
        return ""

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """Let a process be ended by somebody else."""
        self._running = [(name, other) for name, other in self._running if other is not process]

    def stop(self, process: subprocess.Popen[bytes], patience: float = 10) -> int:
        """End a process politely, then not; returns its status."""
        self.forget(process)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with uninterrupted():
            for _, process in reversed(self._running):
                process.send_signal(signal.SIGTERM)
            for _, process in list(reversed(self._running)):
                self.stop(process)  # the second SIGTERM: a proxy need not drain any more


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl-C, or a terminal that is closed meanwhile, must not leave behind what is being ended."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which signals do not interrupt
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def temporary_home(prefix: str) -> Iterator[Path]:
    """A directory that is gone at the end of the block, however that comes."""
    home = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield home
    finally:
        with uninterrupted():
            shutil.rmtree(home, ignore_errors=True)


def inherited() -> Mapping[str, str]:
    """The environment that processes start from: the user's, without settings for another control plane."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KUMA_")}


def _end_with_parent() -> None:
    """Runs in the child: asks the kernel to end it when its parent dies, for whatever reason."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def until(what: str, ask: Callable[[], T | None], processes: Processes | None = None, seconds: float = PATIENCE) -> T:
    """Polls `ask` until it returns something true, and returns that.

    Raises:
        Failed: it did not within `seconds`, or a process ended meanwhile.
    """
    end = time.monotonic() + seconds
    while True:
        if processes is not None:
            processes.check()
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds:.0f} seconds")
        time.sleep(0.05)


_PORTS = range(20_000, 32_768)
"""Below those that the kernel gives to outgoing connections: nobody takes one by chance before it is used."""
_BLOCK = 256
"""Ports that a program reserves for itself, and hands out one after the other."""


def reserve(what: str) -> bool:
    """Keep something from all other programs of this machine that reserve it too, until this one ends.

    A name in the abstract namespace of Unix sockets has one owner, and is free again however its owner ends.
    """
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0kuma-demo {what}")
    except OSError:
        held.close()
        return False
    held.detach()  # open until the program ends, and no object that is left unclosed then
    return True


@functools.cache
def _own_ports() -> Iterator[int]:
    """Return the ports of a block that no other program has reserved, again and again in order."""
    blocks = _PORTS[:-_BLOCK:_BLOCK]
    for first in random.sample(blocks, len(blocks)):
        if reserve(f"ports from {first}"):
            return itertools.cycle(range(first, first + _BLOCK))
    raise Failed(f"all ports from {_PORTS.start} to {_PORTS.stop} are reserved by other demos and tests")


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of the loopback that nobody listens on, and that no other program is given before they are used."""
    return tuple(itertools.islice(filter(_can_be_bound, _own_ports()), count))


def _can_be_bound(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tells whether nobody listens on this port of the loopback."""
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) != 0
