"""The programs of the tutorials: a store of one counter, a web application that counts there, and one that answers.

counter.py kv PORT
counter.py app PORT PORT_OF_THE_STORE
counter.py echo PORT NAME
"""

from __future__ import annotations

import socket
import socketserver
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Store(socketserver.ThreadingTCPServer):
    """Counts, and answers every line with the sum."""

    allow_reuse_address = True
    daemon_threads = True
    count = 0


class Line(socketserver.StreamRequestHandler):
    server: Store

    def handle(self) -> None:
        for _ in self.rfile:
            self.server.count += 1
            self.wfile.write(f"{self.server.count}\n".encode())


class Web(BaseHTTPRequestHandler):
    """Answers with the counter of the store, or with a name."""

    def do_GET(self) -> None:
        try:
            text = counted(int(sys.argv[3])) if sys.argv[1] == "app" else sys.argv[3]
        except OSError:
            text = ""
        self.send_response(200 if text else 502)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def counted(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"INCR\n")
        return connection.makefile().readline().strip()


if __name__ == "__main__":
    place = ("127.0.0.1", int(sys.argv[2]))
    server = Store(place, Line) if sys.argv[1] == "kv" else ThreadingHTTPServer(place, Web)
    server.serve_forever()
