"""Requests without a pause, each a new TCP connection through both proxies, and the TLS handshakes that they cause."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable

REQUEST = b"GET / HTTP/1.1\r\nhost: backend\r\nconnection: close\r\n\r\n"


class Traffic:
    """Calls backend through web's proxy from a few threads."""

    def __init__(self, port: int, threads: int = 4) -> None:
        self.answers: Counter[str] = Counter()
        self._port = port
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(timeout=20)

    @property
    def failed(self) -> int:
        return self.answers.total() - self.answers["200"]

    def _run(self) -> None:
        while not self._done.is_set():
            self.answers[self._call()] += 1

    def _call(self) -> str:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=10) as sock:
                sock.sendall(REQUEST)
                answer = b""
                while piece := sock.recv(4096):
                    answer += piece
        except OSError as error:
            return type(error).__name__
        return "200" if answer.startswith(b"HTTP/1.1 200") else f"no answer ({answer[:20]!r})"


class Handshakes:
    """Adds up a proxy's own count, which begins anew when the cluster that it belongs to is replaced."""

    def __init__(self, ask: Callable[[], int]) -> None:
        self.total = 0
        self._ask = ask
        self._last = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(timeout=20)

    def _run(self) -> None:
        while not self._done.wait(0.2):
            with contextlib.suppress(OSError):
                now = self._ask()
                self.total += now - self._last if now >= self._last else now
                self._last = now
