"""What stands between a control plane and the API server: an HTTP proxy that a test tells what to answer itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tools.kubernetes.cluster import Cluster

_ONE_HOP = {"connection", "transfer-encoding", "content-length", "host"}


class Asked(NamedTuple):
    """A request: `is_watch` tells one for a watch from one for a list."""

    method: str
    path: str
    query: str

    @property
    def is_watch(self) -> bool:
        return "watch=true" in self.query


class Answer(NamedTuple):
    """An answer that is given in the API server's place: a Status."""

    code: int
    reason: str
    retry_after: int | None = None

    def body(self) -> bytes:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": self.code, "reason": self.reason}
        return json.dumps({**status, "message": f"{self.reason}, says the test"}).encode()


Interference = Callable[[Asked], Answer | None]


@dataclass
class Between:
    """The proxy. `interfere` is asked about each request; None lets it through."""

    url: str
    interfere: Interference = lambda asked: None
    before_answer: Callable[[Asked], None] = lambda asked: None
    """Called once the API server has answered, before who has asked gets to know."""
    asked: list[Asked] = field(default_factory=list)
    _open: dict[http.client.HTTPConnection, Asked] = field(default_factory=dict)

    def cut_off(self) -> None:
        """Ends the watches that are under way."""
        for connection, asked in list(self._open.items()):
            if asked.is_watch and connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(2)


@contextlib.contextmanager
def between(cluster: Cluster) -> Iterator[Between]:
    """A proxy to the API server, with the rights of whoever asks, or else of the administrator."""
    target = urlsplit(cluster.url)
    content = json.loads(cluster.admin.read_text())["users"][0]["user"]
    tls = ssl.create_default_context(cafile=cluster.ca.file)
    as_admin = ssl.create_default_context(cafile=cluster.ca.file)
    as_admin.load_cert_chain(content["client-certificate"], content["client-key"])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _pass(self) -> None:
            path, _, query = self.path.partition("?")
            asked = Asked(self.command, path, query)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            found.asked.append(asked)
            answer = found.interfere(asked)
            with contextlib.suppress(OSError, http.client.HTTPException):
                if answer is not None:
                    self._answer(answer)
                else:
                    self._forward(asked, body)
                return
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

        def _answer(self, answer: Answer) -> None:
            body = answer.body()
            self.send_response(answer.code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            if answer.retry_after is not None:
                self.send_header("retry-after", str(answer.retry_after))
            self.end_headers()
            self.wfile.write(body)

        def _forward(self, asked: Asked, body: bytes) -> None:
            known = "authorization" in self.headers
            connection = http.client.HTTPSConnection(
                target.hostname or "", target.port, context=tls if known else as_admin
            )
            found._open[connection] = asked
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _ONE_HOP}
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                found.before_answer(asked)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _ONE_HOP:
                        self.send_header(name, value)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                while chunk := answer.read1(65536):
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self.wfile.write(b"0\r\n\r\n")
            finally:
                found._open.pop(connection, None)
                connection.close()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Between(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, name="proxy to the API server")
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        found.cut_off()
        server.server_close()
        thread.join()


def kubeconfig(found: Between, directory: Path, token: str = "") -> Path:
    """A kubeconfig with the proxy in the API server's place."""
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": found.url}}],
        "users": [{"name": "c", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }  # fmt: skip
    file = directory / "between.kubeconfig"
    file.write_text(json.dumps(content))
    return file
