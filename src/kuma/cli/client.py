"""The control plane's API as kumactl uses it. Every failure is a `KumaError` whose text is for a person."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httpx

import kuma
from kuma.base.errors import KumaError
from kuma.resources import codec, kinds
from kuma.resources.kinds import Kind
from kuma.resources.resource import Key, Resource


class RequestFailed(KumaError):
    """The control plane answered with an error, or not at all."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Client:
    """One control plane."""

    def __init__(
        self, address: str, timeout: float, verify: ssl.SSLContext, headers: Mapping[str, str] | None = None
    ) -> None:
        self._address = address
        self._http = httpx.Client(
            base_url=address.rstrip("/"),
            timeout=timeout,
            verify=verify,
            trust_env=False,
            headers={**(headers or {}), "user-agent": f"kumactl/{kuma.__version__}"},
        )

    def close(self) -> None:
        """End all connections."""
        self._http.close()

    def index(self) -> Mapping[str, Any]:
        """What the control plane says it is."""
        found: Mapping[str, Any] = self._request("GET", "/").json()
        return found

    def who_am_i(self) -> Mapping[str, Any]:
        """Whom the control plane takes us for."""
        found: Mapping[str, Any] = self._request("GET", "/who-am-i").json()
        return found

    def list(self, kind: Kind, mesh: str, size: int | None, offset: int | None) -> Mapping[str, Any]:
        """One page of a list."""
        return self._page(_path(kind, mesh), size, offset)

    def list_whole(self, path: str, **filters: str) -> Sequence[Mapping[str, Any]]:
        """All items of a list, or those that the filters let through, page by page."""
        items: list[Mapping[str, Any]] = []
        while True:
            page = self._page(path, 1000, len(items), filters)
            items += page["items"]
            if not page["items"] or len(items) >= page["total"]:
                return items

    def get(self, kind: Kind, name: str, mesh: str) -> Mapping[str, Any] | None:
        """One resource, or None if there is none."""
        try:
            found: Mapping[str, Any] = self._request("GET", f"{_path(kind, mesh)}/{name}").json()
        except RequestFailed as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        return found

    def rekey(self) -> None:
        """Have all Secrets sealed under a new key."""
        self._request("POST", "/rekey")

    def text(self, path: str) -> str:
        """What the control plane answers, as it stands."""
        return self._request("GET", path).text

    def items(self, path: str) -> Sequence[Mapping[str, Any]]:
        """The items of a list that is not paged."""
        found: Sequence[Mapping[str, Any]] = self._request("GET", path).json()["items"]
        return found

    def put(self, resource: Resource[Any]) -> tuple[bool, Mapping[str, Any]]:
        """Create or replace: whether it was created, and what the control plane says about it."""
        answer = self._request("PUT", _item(resource.key), json=codec.to_universal(resource))
        return answer.status_code == httpx.codes.CREATED, answer.json() if answer.content else {}

    def delete(self, kind: Kind, name: str, mesh: str) -> None:
        """Delete one resource."""
        try:
            self._request("DELETE", f"{_path(kind, mesh)}/{name}")
        except RequestFailed as error:
            if error.status == httpx.codes.NOT_FOUND:
                raise RequestFailed(f'there is no {kind.name} with name "{name}"', error.status) from None
            raise

    def token(self, kind: str, request: Mapping[str, Any]) -> str:
        """A new token, for a `dataplane` or a `user`."""
        return self._request("POST", f"/tokens/{kind}", json=request).text

    def _page(
        self, path: str, size: int | None, offset: int | None, filters: Mapping[str, str] = MappingProxyType({})
    ) -> Mapping[str, Any]:
        paging = {name: value for name, value in (("size", size), ("offset", offset)) if value is not None}
        query = {**filters, **paging}
        page: Mapping[str, Any] = self._request("GET", path, params=query).json()
        return page

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TimeoutException:
            raise RequestFailed(
                f"the control plane at {self._address} does not answer; give it longer with --api-timeout"
            ) from None
        except httpx.HTTPError as error:
            raise RequestFailed(
                f"cannot reach the control plane at {self._address}: {error}. Is kuma-cp running? "
                "Another address is chosen with: kumactl config control-planes add"
            ) from None
        if answer.is_success:
            return answer
        raise RequestFailed(_text(answer), answer.status_code)


def _path(kind: Kind, mesh: str) -> str:
    return f"/meshes/{mesh}/{kind.path}" if kind.in_mesh else f"/{kind.path}"


def _item(key: Key) -> str:
    return f"{_path(kinds.by_name(key.kind), key.mesh)}/{key.name}"


def _text(answer: httpx.Response) -> str:
    """An error as the control plane explains it: its title and detail, then a line per field."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not body.get("title"):
        return f"({answer.status_code}): {answer.text[:1000]}"
    lines = [f"{body['title']} ({body.get('detail', '')})"]
    lines += [f"* {p.get('field')}: {p.get('reason')}" for p in body.get("invalid_parameters", ())]
    return "\n".join(lines)
