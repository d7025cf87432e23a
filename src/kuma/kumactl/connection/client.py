"""The control plane's API as kumactl uses it. Every failure is a `KumaError` whose text is for a person."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import kuma
from kuma.base.errors import KumaError
from kuma.base.tls import handshakes
from kuma.base.values import urls
from kuma.kumactl.connection import paths, requests
from kuma.kumactl.connection.requests import Answer
from kuma.resources.keys import Key
from kuma.resources.naming import Naming

if TYPE_CHECKING:
    from kuma.resources.resource import Resource  # its models take long to load, and only some commands need them


class RequestFailed(KumaError):
    """The control plane answered with an error, or not at all."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status

    @property
    def passes(self) -> bool:
        """Tells whether the same request may be answered later: there was no answer, or too much to do."""
        return self.status in _PASSING


class _NotThere(RequestFailed):
    """What answers has no such path: it is no control plane, or one of another version."""


_PASSING = (
    0,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
CHOOSE_ANOTHER = "Another address is chosen with: kumactl config control-planes add"

_SHORTEST_WAIT = 1.0
"""Seconds; nobody answers within none."""


class Client:
    """Client of one control plane. `remedy` is advice for a user who no longer finds it at its address."""

    def __init__(
        self,
        address: str,
        timeout: float,
        verify: ssl.SSLContext | None,
        headers: Mapping[str, str] | None = None,
        *,
        remedy: str = CHOOSE_ANOTHER,
        ca_file: str = "",
        client_file: str = "",
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._ca_file = ca_file
        self._client_file = client_file
        self._remedy = remedy
        try:
            urls.split(address, "http", "https")
        except ValueError as error:
            raise RequestFailed(f"the address of the control plane, {address}, {error}") from None
        own = {"user-agent": f"kumactl/{kuma.__version__}", "accept": "*/*"}
        self._server = requests.Server(address, timeout, verify, {**(headers or {}), **own})

    def close(self) -> None:
        """End all connections."""
        self._server.close()

    def wait_at_most(self, seconds: float) -> None:
        """Wait for no answer from now on for longer than this."""
        self._server.wait(min(self._timeout, max(seconds, _SHORTEST_WAIT)))

    def index(self) -> Mapping[str, Any]:
        """Fetches what the control plane says of itself."""
        return self._object(_INDEX)

    def who_am_i(self) -> Mapping[str, Any]:
        """Fetches the caller's identity as the control plane sees it."""
        return self._object("/who-am-i")

    def list(self, kind: Naming, mesh: str, size: int | None, offset: int | None) -> Mapping[str, Any]:
        """Fetches one page of a list of resources."""
        return self.page(paths.collection(kind, mesh), size, offset)

    def page(
        self,
        path: str,
        size: int | None,
        offset: int | None,
        *,
        about: str = "",
        more: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Mapping[str, Any]:
        """Fetches one page of a list; `more` is the rest of the query, `about` names what it concerns in errors."""
        paging = {name: value for name, value in (("size", size), ("offset", offset)) if value is not None}
        return self._object(path, about=about, params={**paging, **(more or {})})

    def list_whole(
        self,
        path: str,
        *,
        about: str = "",
        reveal: bool = False,
        filters: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Sequence[Mapping[str, Any]]:
        """Fetches all items of a list, or those that pass the filters, page by page.

        `about` names the resource that the list concerns, for errors; `reveal`: without masks, which administrators
        may ask for.
        """
        more = {**(filters or {}), **({"reveal": "true"} if reveal else {})}
        items: list[Mapping[str, Any]] = []
        while True:
            page = self.page(path, 1000, len(items), about=about, more=more)
            items += page["items"]
            if not page["items"] or len(items) >= page["total"]:
                return items

    def list_if_known(self, path: str) -> Sequence[Mapping[str, Any]]:
        """Fetches all items of a list; none if the control plane does not know it, because it is older, or another's.

        For those who know already that what answers is a control plane.
        """
        try:
            return self.list_whole(path)
        except _NotThere:
            return ()
        except RequestFailed as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return ()
            raise

    def get(self, kind: Naming, name: str, mesh: str) -> Mapping[str, Any] | None:
        """Fetches one resource; None if there is none."""
        key = kind.key(name, mesh)
        try:
            return self._object(paths.item(key, kind), about=str(key))
        except RequestFailed as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def rekey(self) -> None:
        """Have all Secrets sealed under a new key."""
        self._request("POST", "/rekey")

    def text_of(self, key: Key, *parts: str) -> str:
        """Fetches the answer about a resource unchanged."""
        return self._request("GET", "/".join((paths.item(key), *parts)), about=str(key)).text

    def items_of(self, key: Key, *parts: str) -> Sequence[Mapping[str, Any]]:
        """The items of a list about a resource; it is not paged."""
        found: Sequence[Mapping[str, Any]] = self._object("/".join((paths.item(key), *parts)), about=str(key))["items"]
        return found

    def put(
        self, resource: Resource[Any], *, strict: bool = False, allow_weakening: bool = False
    ) -> tuple[bool, Mapping[str, Any]]:
        """Create or replace: whether it was created, and what the control plane says about it.

        `strict`: what has no effect here is refused. `allow_weakening`: what weakens a guarded mesh is not.
        """
        from kuma.resources import codec, kinds

        key, query = resource.key, _query(strict=strict, allowWeakening=allow_weakening)
        path = paths.item(key, kinds.by_name(key.kind).naming)
        answer = self._request("PUT", path, about=str(key), json=codec.to_universal(resource), params=query)
        return answer.status == HTTPStatus.CREATED, answer.json() if answer.content else {}

    def dry_run(
        self, resources: Sequence[Resource[Any]], *, strict: bool = False, allow_weakening: bool = False
    ) -> Sequence[Mapping[str, Any]]:
        """Returns what would become of resources if they were sent one after the other, for each; nothing is stored."""
        from kuma.resources import codec

        asked = {
            "resources": [codec.to_universal(resource) for resource in resources],
            "strict": strict,
            "allowWeakening": allow_weakening,
        }
        found: Sequence[Mapping[str, Any]] = self._request("POST", "/_dry-run", json=asked).json()["items"]
        return found

    def delete(
        self, kind: Naming, name: str, mesh: str, *, allow_weakening: bool = False, dry_run: bool = False
    ) -> Sequence[str]:
        """Delete one resource, or ask what would become of that; returns the control plane's warnings."""
        key = kind.key(name, mesh)
        query = {**_query(allowWeakening=allow_weakening), **({"dryRun": "All"} if dry_run else {})}
        try:
            answer = self._request("DELETE", paths.item(key, kind), about=str(key), params=query)
        except RequestFailed as error:
            if error.status == HTTPStatus.NOT_FOUND:
                where = f' in mesh "{mesh}"' if kind.in_mesh else ""
                raise RequestFailed(f'there is no {kind.name} with name "{name}"{where}', error.status) from None
            raise
        return tuple(answer.json().get("warnings", ())) if answer.content else ()

    def preview(
        self, resources: Sequence[Mapping[str, Any]], delete: Sequence[Mapping[str, str]], within: str = ""
    ) -> Mapping[str, Any]:
        """Asks what a change would do: resources in the Universal form, and the names of those to be deleted.

        Who has not called `within` so long, such as `7d`, is passed over.
        """
        asked = {"resources": resources, "delete": delete, **({"within": within} if within else {})}
        return dict(self._request("POST", "/preview", json=asked).json())

    def suggestions(self, mesh: str, kind: str) -> Mapping[str, Any]:
        """Fetches the permissions of a kind that the callers that were seen would need."""
        return self._object(paths.within(mesh, "permission-suggestions"), params={"kind": kind})

    def token(self, kind: str, request: Mapping[str, Any]) -> str:
        """A new token, for a `dataplane` or a `user`."""
        return self._request("POST", f"/tokens/{kind}", json=request).text

    def _object(self, path: str, **arguments: Any) -> Mapping[str, Any]:
        """The JSON object that a GET is answered with."""
        try:
            found = self._request("GET", path, **arguments).json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._not_a_control_plane()
        return found

    def _not_a_control_plane(self, what: str = "is no control plane of Kuma") -> _NotThere:
        """Returns the error for a server that is no control plane, so that its answers, such as a 404, mean nothing."""
        return _NotThere(f"what answers at {self._address} {what}. {self._remedy}", HTTPStatus.OK)

    def _request(
        self, method: str, path: str, *, about: str = "", params: requests.Query | None = None, json: object = None
    ) -> Answer:
        """The answer, if it is a good one; `about` names the resource that it concerns, for errors."""
        try:
            answer = self._server.request(method, path, params or {}, json)
        except TimeoutError:
            raise RequestFailed(
                f"the control plane at {self._address} does not answer; give it longer with --api-timeout"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise RequestFailed(self._unreached(error)) from None
        if answer.is_good:
            return answer
        text = _text(answer)
        if not text and answer.status in _NO_SUCH_PATH:
            lacking = f"has no {path}: it is no control plane of Kuma, or of another version"
            raise self._not_a_control_plane(lacking) if path != _INDEX else self._not_a_control_plane()
        text = text or f"{answer.status} {answer.reason}{_excerpt(answer)}"
        raise RequestFailed(f"{about}: {text}" if about else text, answer.status)

    def _unreached(self, error: Exception) -> str:
        """Describes why there was no answer, and the remedy."""
        untrusted = handshakes.untrusted(error)
        if untrusted and self._ca_file:
            return f"the certificate of {self._address} does not hold by the CA in {self._ca_file}: {untrusted}"
        if untrusted:
            return (
                f"the certificate of {self._address} is not trusted: {untrusted}. Say by which CA to verify it: "
                "kumactl config control-planes add --ca-cert-file, with ca.crt of the control plane's work directory"
            )
        if handshakes.no_tls(error):
            return f"what answers at {self._address} does not speak TLS; an http address is needed there"
        if isinstance(error, http.client.HTTPException) and self._address.startswith("http:"):
            return (
                f"what answers at {self._address} does not speak HTTP in the clear; if it is the HTTPS port of a "
                "control plane, an https address is needed there"
            )
        if handshakes.refused(error) or (self._client_file and handshakes.cut_off(error)):
            return self._handshake_refused()
        reason = handshakes.words(error)
        if self._address.startswith("https:") and handshakes.cut_off(error):
            # Its alert is lost if we were sending when it came.
            return (
                f"what answers at {self._address} has ended the connection: {reason}. "
                f"If it wants a client certificate, {_TAKES_CERTIFICATE}"
            )
        return f"cannot reach the control plane at {self._address}: {reason}. Is kuma-cp running? {self._remedy}"

    def _handshake_refused(self) -> str:
        """Describes a refused handshake, for which the other side may not have given the reason."""
        if not self._client_file:
            return f"what answers at {self._address} wants a client certificate; {_TAKES_CERTIFICATE}"
        return (
            f"what answers at {self._address} does not go on with the client certificate in {self._client_file}: "
            "it has to be issued by a CA, or be one, that is listed there, be for clients, and not have ended"
        )


def _query(**asked: bool) -> Mapping[str, str]:
    """The query that asks for what is true."""
    return {name: "true" for name, value in asked.items() if value}


_TAKES_CERTIFICATE = "kumactl config control-planes add takes it with --client-cert-file and --client-key-file"
_INDEX = "/"
_NO_SUCH_PATH = (HTTPStatus.NOT_FOUND, HTTPStatus.NOT_IMPLEMENTED)
"""What servers say of a path or method that they do not have; a control plane says more of a resource."""


def _text(answer: Answer) -> str:
    """An error as a control plane explains it; nothing if it does not."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    return explained(body) if isinstance(body, dict) and body.get("title") else ""


def explained(body: Mapping[str, Any]) -> str:
    """An error in the JSON of a control plane: its title and detail, then a line per field."""
    lines = [f"{body['title']} ({body.get('detail', '')})"]
    lines += [f"* {p.get('field')}: {p.get('reason')}" for p in body.get("invalid_parameters", ())]
    return "\n".join(lines)


def _excerpt(answer: Answer) -> str:
    """Returns an excerpt of a plain-text answer; empty for an HTML page."""
    text = answer.text.strip()
    return f": {text[:1000]}" if text and not text.startswith("<") else ""
