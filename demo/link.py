"""A network connection between two programs that can be cut: nothing comes through any more, and nobody is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Address = tuple[str, int]


def _everybody(_: Address) -> bool:
    return True


class Link:
    """Passes TCP connections on from one address to another; while it is cut, what is sent waits in it."""

    def __init__(self, listens: Address, leads_to: Address) -> None:
        self._leads_to = leads_to
        self._cut_off: Callable[[Address], bool] = _everybody
        self._are_cut_off: dict[Address, bool] = {}
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(listens)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, whom: Callable[[Address], bool] = _everybody) -> None:
        """Let nothing through, of connections of some clients only if `whom` tells them by their addresses."""
        self._cut_off, self._are_cut_off = whom, {}
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again, what has waited first."""
        self._whole.set()

    def _accept(self) -> None:
        while True:
            connection, client = self._listener.accept()
            threading.Thread(target=self._join, args=(connection, client), daemon=True).start()

    def _join(self, connection: socket.socket, client: Address) -> None:
        self._wait(client)
        try:
            there = socket.create_connection(self._leads_to)
        except OSError:
            connection.close()
            return
        threading.Thread(target=self._pass_on, args=(there, connection, client), daemon=True).start()
        self._pass_on(connection, there, client)

    def _wait(self, client: Address) -> None:
        if self._whole.is_set():
            return
        known = self._are_cut_off
        if client not in known:  # once for each connection: to find out may take as long as much is passed on
            known[client] = self._cut_off(client)
        if known[client]:
            self._whole.wait()

    def _pass_on(self, source: socket.socket, target: socket.socket, client: Address) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._wait(client)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
