"""A small HTTP service. It tells who called it, and calls on if it is told where.

python -m demo.workload NAME PORT [UPSTREAM]
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def handler(name: str, upstream: str | None) -> type[BaseHTTPRequestHandler]:
    """The request handler of a workload called `name`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if upstream is None:
                status = 200
                answer = {"service": name, "caller": self.headers.get("x-forwarded-client-cert", "")}
            else:
                status, answer = _call(upstream)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Stay quiet: a line per request says nothing here."""

    return Handler


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks the sidecar, not a proxy that the user's environment names."""


def _call(upstream: str) -> tuple[int, dict[str, str]]:
    try:
        with _DIRECT.open(upstream, timeout=30) as response:
            found: dict[str, str] = json.load(response)
            return 200, found
    except urllib.error.HTTPError as error:
        return error.code, {"error": error.read().decode(errors="replace")}
    except OSError as error:
        return 502, {"error": str(error)}


if __name__ == "__main__":
    name, port = sys.argv[1], int(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", port), handler(name, sys.argv[3] if len(sys.argv) > 3 else None)).serve_forever()
