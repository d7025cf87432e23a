"""A network connection between two programs that can be cut: nothing comes through any more, and nobody is told."""

from __future__ import annotations

import contextlib
import socket
import threading

Address = tuple[str, int]


class Link:
    """Passes TCP connections on from one address to another; while it is cut, what is sent waits in it."""

    def __init__(self, listens: Address, leads_to: Address) -> None:
        self._leads_to = leads_to
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(listens)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again, what has waited first."""
        self._whole.set()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._join, args=(connection,), daemon=True).start()

    def _join(self, connection: socket.socket) -> None:
        self._whole.wait()
        try:
            there = socket.create_connection(self._leads_to)
        except OSError:
            connection.close()
            return
        threading.Thread(target=self._pass_on, args=(there, connection), daemon=True).start()
        self._pass_on(connection, there)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
