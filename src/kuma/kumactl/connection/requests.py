"""HTTP as kumactl speaks it, by the standard library: a client that can do more takes longer to load than an answer."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

log = logging.getLogger(__name__)
Query = Mapping[str, str | int | Sequence[str]]


def tell(level: str) -> None:
    """Tell each request and its status on standard error, from `level` upwards; never what it carries."""
    if level == "off":
        return
    log.setLevel(level.upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer of a server."""

    status: int
    reason: str
    content: bytes

    @property
    def is_good(self) -> bool:
        """Tells whether the server has done what it was asked for."""
        return self.status // 100 == HTTPStatus.OK // 100

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Returns what the answer says.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(self.content)


class Server:
    """A server at an address, asked over one connection that is kept."""

    def __init__(self, address: str, timeout: float, tls: ssl.SSLContext | None, headers: Mapping[str, str]) -> None:
        """`tls` verifies an https address, and is not needed for another one."""
        url = urlsplit(address)
        self._base, self._headers, self._address = url.path.rstrip("/"), headers, address.rstrip("/")
        host = url.hostname or ""
        self._connection = (
            http.client.HTTPSConnection(host, url.port, timeout=timeout, context=tls)
            if url.scheme == "https"
            else http.client.HTTPConnection(host, url.port, timeout=timeout)
        )

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def wait(self, seconds: float) -> None:
        """Wait for each answer for so long from now on."""
        self._connection.timeout = seconds
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)

    def request(self, method: str, path: str, query: Query, content: object) -> Answer:
        """Ask, with `content` as JSON if there is any.

        Raises:
            OSError: the server cannot be reached, or does not answer in time (`TimeoutError`).
            http.client.HTTPException: what it answers is not HTTP.
        """
        target = "?".join(filter(None, (path, urlencode(query, doseq=True))))
        body = None if content is None else json.dumps(content, ensure_ascii=False).encode()
        headers = {**self._headers, **({} if body is None else {"content-type": "application/json"})}
        answer = self._exchange(method, self._base + target, body, headers)
        log.info('HTTP Request: %s %s%s "%d %s"', method, self._address, target, answer.status, answer.reason)
        return answer

    def _exchange(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Ask over the connection that is there; over a new one, if the server has ended that while nobody asked."""
        kept = self._connection.sock is not None
        try:
            return self._once(method, target, body, headers)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not kept:
                raise
        return self._once(method, target, body, headers)

    def _once(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        try:
            self._connection.request(method, target, body, dict(headers))
            answer = self._connection.getresponse()
            return Answer(answer.status, answer.reason, answer.read())
        except BaseException:
            self._connection.close()  # half an answer is on the way
            raise
