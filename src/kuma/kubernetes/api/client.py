"""Requests to the Kubernetes API: plain HTTP and JSON, as docs/decisions/0009-kubernetes-client.md says."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any

import httpx
import structlog
from prometheus_client import CollectorRegistry

from kuma.base.errors import Unavailable
from kuma.kubernetes.api import half_open
from kuma.kubernetes.api.credentials import Credentials
from kuma.kubernetes.metrics import Metrics

log = structlog.get_logger(__name__)

Object = dict[str, Any]
"""An object of the API, as JSON."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_OF_READS = httpx.Timeout(10.0, connect=5.0)
"""Seconds without a byte. A read can be given up earlier: of a write it then is not known whether it was done."""
_PAGE = 500
"""Objects of one answer to a list."""
_SELECTORS = ("labelSelector", "fieldSelector")
_CONNECTIONS = httpx.Limits(max_connections=200, max_keepalive_connections=20)
_WATCH_SECONDS = 300
"""After which the server ends a watch, and another one begins where it ended."""
_SILENCE = 90.0
"""Seconds without a word, not even a bookmark (one a minute), after which the server is taken to be gone."""
_TRIES = 6
"""How often something is asked that the server is too busy for: 429 says that it has not been done."""
_LONGEST_PAUSE = 10.0
"""Seconds between two of them, whatever the server asks for."""


class ApiError(Exception):
    """An answer that is an error: `code` as in HTTP, `reason` in Kubernetes' words, such as `Conflict`."""

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message or reason or str(code))
        self.code, self.reason, self.details = code, reason, details or {}

    @classmethod
    def of(cls, status: Mapping[str, Any], code: int = 0) -> ApiError:
        """Returns the error that an object of the kind `Status` tells of."""
        number = int(status.get("code") or code)
        return cls(number, status.get("reason") or "", status.get("message") or "", status.get("details"))


class ApiClient:
    """One client of the API server.

    Every method raises `ApiError` for an answer that is an error, and `Unavailable` if there is none: the server is
    away, overloaded or starting.
    """

    def __init__(
        self, credentials: Credentials, metrics: Metrics | None = None, *, of_reads: httpx.Timeout = _OF_READS
    ) -> None:
        """`of_reads` is how long reads wait, but for watches."""
        self.metrics = metrics or Metrics(CollectorRegistry())
        self._token = credentials.token
        self._before_write: Callable[[], None] = lambda: None
        self._timeout, self._of_reads = _TIMEOUT, of_reads
        self._http = httpx.AsyncClient(
            base_url=credentials.url, verify=credentials.tls, timeout=_TIMEOUT, limits=_CONNECTIONS, trust_env=False
        )

    def guarded(self, check: Callable[[], None]) -> ApiClient:
        """Returns the same client, with the same connections, that asks `check` before it changes anything.

        What `check` raises, the method raises that would have changed something.
        """
        found = copy.copy(self)
        found._before_write = check
        return found

    def within(self, seconds: float) -> ApiClient:
        """Returns the same client, with the same connections, that waits no longer for an answer (not for watches)."""
        found = copy.copy(self)
        found._timeout = found._of_reads = httpx.Timeout(seconds)
        return found

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> ApiClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def get(self, path: str) -> Object:
        """Returns one object, or whatever else stands at a path."""
        return await self._request("GET", path)

    async def find(self, path: str) -> Object | None:
        """Returns one object; None if there is none."""
        try:
            return await self.get(path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def list(self, path: str, **query: str) -> tuple[list[Object], str]:
        """Returns all objects below a path, and the version of the list, from which a watch can go on."""
        found: list[Object] = []
        position = query
        while True:
            page = await self._request("GET", path, query={"limit": str(_PAGE), **position}, counted="LIST")
            found += page.get("items") or []
            go_on = page["metadata"].get("continue") or ""
            if not go_on:
                return found, str(page["metadata"]["resourceVersion"])
            position = {"continue": go_on, **{n: value for n, value in query.items() if n in _SELECTORS}}

    async def create(self, path: str, body: Object, **query: str) -> Object:
        """Creates an object below a path."""
        return await self._request("POST", path, body, query)

    async def replace(self, path: str, body: Object, **query: str) -> Object:
        """Replaces an object; refused if its `metadata.resourceVersion` is not the stored one."""
        return await self._request("PUT", path, body, query)

    async def merge(self, path: str, body: Object) -> Object:
        """Changes some fields of an object (RFC 7396)."""
        return await self._request("PATCH", path, body, content_type="application/merge-patch+json")

    async def delete(self, path: str, **preconditions: str) -> Object:
        """Deletes an object, if it still has this `uid` or `resourceVersion`."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        return await self._request("DELETE", path, body | {"preconditions": preconditions} if preconditions else body)

    async def watch(
        self, path: str, version: str, opened: Callable[[], object] | None = None, **query: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yields the changes after a version: their type (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`) and the object.

        Calls `opened` once the server has begun to answer. Ends when the server ends it, which is its way; `ApiError`
        410 says that the version is too old.
        """
        asked = {
            "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS), **query,
        }  # fmt: skip
        timeout = httpx.Timeout(_TIMEOUT.connect, read=_SILENCE)
        try:
            async with self._http.stream(
                "GET", path, params=asked, headers=self._headers(), timeout=timeout, extensions=_extensions()
            ) as answer:
                self._count("WATCH", answer.status_code)
                if answer.is_error:
                    await answer.aread()
                    if answer.status_code == 429:
                        await asyncio.sleep(_pause(answer))
                    raise _error(answer)
                if opened is not None:
                    opened()
                async for line in _lines(answer):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError.of(event["object"])
                    yield event["type"], event["object"]
        except (httpx.HTTPError, OSError) as error:
            self._count("WATCH", 0)
            raise _away(error) from None
        except ValueError:
            raise Unavailable("the Kubernetes API says something that is no JSON") from None

    async def _request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        counted: str = "",
    ) -> Object:
        if method != "GET":
            self._before_write()
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        headers = {"content-type": content_type} if content else {}
        answer = await self._answer(counted or method, method, path, query, content, headers)
        if answer.is_error:
            raise _error(answer)
        try:
            found: Object = answer.json()
        except ValueError:
            raise Unavailable("the Kubernetes API says something that is no JSON") from None
        return found

    async def _answer(
        self,
        counted: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> httpx.Response:
        """Returns the answer; asks again, when it is told to, if the server is too busy."""
        for tried in range(1, _TRIES + 1):
            try:
                answer = await self._http.request(
                    method,
                    path,
                    params=query,
                    content=content,
                    headers={**headers, **self._headers()},
                    timeout=self._of_reads if method == "GET" else self._timeout,
                    extensions=_extensions(),
                )
            except (httpx.HTTPError, OSError) as error:
                self._count(counted, 0)
                raise _away(error) from None
            self._count(counted, answer.status_code)
            if answer.status_code != 429 or tried == _TRIES:
                break
            pause = _pause(answer)
            log.warning("the Kubernetes API is too busy: asking again", method=method, path=path, after_seconds=pause)
            await asyncio.sleep(pause)
        return answer

    def _count(self, method: str, status: int) -> None:
        self.metrics.requests.labels(method, str(status)).inc()

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {"authorization": f"Bearer {token}"} if token else {}


def _extensions() -> dict[str, Any]:
    return {"trace": half_open.closed()}


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Splits an answer at its line ends; a line may be as long as an object."""
    parts: list[bytes] = []
    async for chunk in answer.aiter_bytes():
        *ended, rest = chunk.split(b"\n")
        for end in ended:
            yield b"".join((*parts, end))
            parts.clear()
        parts.append(rest)


def _error(answer: httpx.Response) -> Exception:
    try:
        status = answer.json()
    except ValueError:
        status = {}
    status = status if isinstance(status, dict) else {}
    error = ApiError.of(status, answer.status_code)
    if error.code in (429, 502, 503, 504) or error.reason == "InternalError":
        return Unavailable(f"the Kubernetes API cannot answer now: {error}")
    return error


def _pause(answer: httpx.Response) -> float:
    """Seconds after which the server wants to be asked again (RFC 9110, 10.2.3; Kubernetes says seconds only)."""
    said = answer.headers.get("retry-after", "")
    return min(float(said), _LONGEST_PAUSE) if said.isascii() and said.isdigit() else 1.0


def _away(error: Exception) -> Unavailable:
    why = "it takes too long" if isinstance(error, httpx.TimeoutException) else str(error) or type(error).__name__
    return Unavailable(f"the Kubernetes API does not answer: {why}")
