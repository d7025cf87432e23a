"""The TLS handshakes that a load causes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from demo.mesh import Unanswered


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
            with contextlib.suppress(Unanswered):
                now = self._ask()
                self.total += now - self._last if now >= self._last else now
                self._last = now
