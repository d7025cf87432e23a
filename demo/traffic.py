"""Load of which every request is a new TCP connection through both proxies, and so a new TLS handshake."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Mapping

from demo.processes import Failed

REQUEST = b"GET / HTTP/1.1\r\nhost: backend\r\nconnection: close\r\n\r\n"
LEAST = 50
"""Requests below which a load proves nothing."""
SHARE = 0.9
"""Of the requests, how many handshakes there have to be; the counters are read a moment before and after."""


class Traffic:
    """Calls through the TCP outbound of a proxy from a few threads, each after `pause` seconds: none by itself."""

    def __init__(self, port: int, threads: int = 4, pause: float = 0.0) -> None:
        self.answers: Counter[str] = Counter()
        self._port, self._pause = port, pause
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def failed(self) -> int:
        """Number of requests with another answer than 200, or none."""
        return self.answers.total() - self.answers["200"]

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(timeout=20)

    def _run(self) -> None:
        while not self._done.wait(self._pause):
            self.answers[call(self._port)] += 1


def call(port: int) -> str:
    """The status of one request on a connection of its own, or what went wrong: any exception is a failure."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
            sock.sendall(REQUEST)
            answer = b""
            while piece := sock.recv(4096):
                answer += piece
    except Exception as error:
        return type(error).__name__
    return "200" if answer.startswith(b"HTTP/1.1 200") else f"no answer ({answer[:20]!r})"


def judge(answers: Mapping[str, int], handshakes: int) -> str:
    """Sums up a load in a sentence.

    Raises:
        Failed: a request failed, or there were too few requests or handshakes to say anything.
    """
    total, failed = sum(answers.values()), sum(n for answer, n in answers.items() if answer != "200")
    said = f"{total:,} requests, {handshakes:,} new TLS handshakes, {failed or 'none'} failed"
    if total < LEAST:
        raise Failed(f"too few requests to show anything: {said}")
    if failed:
        raise Failed(f"requests failed: {said}: {dict(answers)}")
    if handshakes < SHARE * total:
        raise Failed(f"not every request had a handshake of its own, so new certificates were hardly used: {said}")
    return said
