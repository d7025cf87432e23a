"""The programs of the tutorials: a store of one counter, a web application that counts there, one that answers with a
name, and a shop: its page is another's, or its name and what two stores count, `-` for one that it does not reach.

counter.py kv PORT
counter.py app PORT PORT_OF_THE_STORE
counter.py echo PORT NAME
counter.py front PORT PORT_OF_THE_PAGE
counter.py shop PORT NAME PORT_OF_A_STORE PORT_OF_A_STORE
"""

from __future__ import annotations

import socket
import socketserver
import sys
import urllib.request
from collections.abc import Callable, Mapping
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
    """Answers with what the program is about, or that it has not got it."""

    def do_GET(self) -> None:
        try:
            text = PAGES[sys.argv[1]](*sys.argv[3:])
        except OSError:
            text = ""
        self.send_response(200 if text else 502)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def counted(port: str) -> str:
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.sendall(b"INCR\n")
        return connection.makefile().readline().strip()


def fetched(port: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        return str(answer.read().decode())


def sold(name: str, *stores: str) -> str:
    return " ".join((name, *(_attempted(store) for store in stores)))


def _attempted(store: str) -> str:
    try:
        return counted(store) or "-"
    except OSError:
        return "-"


PAGES: Mapping[str, Callable[..., str]] = {"app": counted, "echo": str, "front": fetched, "shop": sold}


if __name__ == "__main__":
    place = ("127.0.0.1", int(sys.argv[2]))
    server = Store(place, Line) if sys.argv[1] == "kv" else ThreadingHTTPServer(place, Web)
    server.serve_forever()
