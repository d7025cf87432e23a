"""A review that is odd is answered by a refusal that says so, and never by an error of the server's own."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.webhooks.app import create_app
from kuma.kubernetes.webhooks.defaults import Defaults
from kuma.kubernetes.webhooks.injector import Injector
from kuma.kubernetes.webhooks.validation import Validation
from kuma.store.manager import ResourceManager
from tests.fakes.patience import PATIENCE
from tests.kubernetes.pods.test_injection import ENABLED, NATIVE, pod
from tests.kubernetes.webhooks.test_same_words import manager, validation

__all__ = ["manager", "validation"]
PERMISSION = {
    "apiVersion": "kuma.io/v1alpha1", "kind": "TrafficPermission", "mesh": "default",
    "metadata": {"name": "p", "labels": {}, "annotations": {}},
    "spec": {"sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "*"}}]},
}  # fmt: skip
SECRET = {
    "apiVersion": "v1", "kind": "Secret", "type": "system.kuma.io/secret", "data": {"value": "c2VjcmV0"},
    "metadata": {"name": "s", "namespace": "kuma-system", "labels": {"kuma.io/mesh": "default"}},
}  # fmt: skip
MESH = {"apiVersion": "kuma.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "m"}, "spec": {}}
POD = pod()
ODD: tuple[Any, ...] = (None, [], {}, [None], "text", 7, True, {"a": None}, [[]])
FIELDS: tuple[Any, ...] = (None, [], {}, [None], 7)
PATHS = ("/validate", "/default", "/inject-sidecar")


class Api:
    """The Kubernetes API, where every namespace has sidecars."""

    async def get(self, path: str) -> Any:
        return (
            ENABLED if path.startswith("/api/v1/namespaces/") else MESH | {"metadata": {"name": "default", "uid": "u"}}
        )


@pytest.fixture
async def webhooks(
    manager: ResourceManager, validation: Validation, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    ca, api, forms = tmp_path / "ca", Api(), Forms("kuma-system")
    ca.write_text("CA")
    injector = Injector(api, manager, NATIVE, ca, "kuma-system")  # type: ignore[arg-type]
    defaults = Defaults(api, forms)  # type: ignore[arg-type]
    app = create_app(dict(zip(PATHS, (validation.answer, defaults.answer, injector.answer), strict=True)))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://webhooks", timeout=PATIENCE) as client:
        yield client


def review(found: Any, **said: Any) -> dict[str, Any]:
    kind = {"kind": found.get("kind", "Pod") if isinstance(found, dict) else "Mesh"}
    request = {"uid": "1", "operation": "CREATE", "kind": kind, "name": "p", "namespace": "shop", "object": found}
    return {"request": {**request, "userInfo": {"username": "jane"}, **said}}


def places(found: Any, *above: Any) -> list[tuple[Any, ...]]:
    """Every place in a document, from the outside."""
    names = list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
    return [place for name in names for place in [(*above, name), *places(found[name], *above, name)]]


def changed(found: Any, place: tuple[Any, ...], odd: Any) -> Any:
    made = copy.deepcopy(found)
    within = made
    for name in place[:-1]:
        within = within[name]
    within[place[-1]] = odd
    return made


def is_clear(answer: httpx.Response) -> bool:
    """Tells whether it was refused as a request, or answered as a review."""
    if answer.status_code == 200:
        return isinstance(answer.json()["response"]["allowed"], bool)
    return 400 <= answer.status_code < 500 and bool(answer.text)


async def unclear(webhooks: httpx.AsyncClient, bodies: list[Any]) -> list[tuple[str, Any]]:
    return [
        (path, body)
        for path in PATHS
        for body in bodies
        if not is_clear(await webhooks.post(path, content=json.dumps(body)))
    ]


@pytest.mark.parametrize("place", [(), ("request",)], ids=["body", "request"])
async def test_what_is_no_review_is_refused(webhooks: httpx.AsyncClient, place: tuple[str, ...]) -> None:
    for odd in ODD:
        body = changed(review(PERMISSION), place, odd) if place else odd
        for path in PATHS:
            assert (await webhooks.post(path, content=json.dumps(body))).status_code == 400, odd


@pytest.mark.parametrize("found", [PERMISSION, SECRET, MESH, POD], ids=["permission", "secret", "mesh", "pod"])
@pytest.mark.parametrize("wrap", [
    review, lambda found: review(None, operation="DELETE", oldObject=found),
], ids=["created", "deleted"])  # fmt: skip
async def test_no_odd_field_is_an_error_of_the_servers_own(
    webhooks: httpx.AsyncClient, found: Any, wrap: Callable[[Any], Any]
) -> None:
    whole = wrap(found)
    assert await unclear(webhooks, [whole]) == []
    odd = [changed(whole, place, value) for place in places(whole) for value in FIELDS]
    assert await unclear(webhooks, odd) == []


@pytest.mark.parametrize("text", [
    b'{"request": NaN}', b'{"request": {"uid": "1", "uid": "2"}}', b"\xff", b'{"request": {"uid": "\\ud800"}}', b"",
    json.dumps(review(MESH)).replace('"spec": {}', '"spec": {"a": NaN}').encode(),
    json.dumps(review(MESH)).replace('"spec": {}', '"spec": {"a": 1e999}').encode(),
    json.dumps(review(MESH)).replace('"spec": {}', '"spec": {}, "spec": {"a": 1}').encode(),
    json.dumps(review(MESH | {"spec": {"a": "x\ud800"}})).encode(),
    json.dumps(review(MESH | {"spec": [[]] * 3_000_000})).encode()[: 8 << 20],
])  # fmt: skip
async def test_what_is_no_json_is_refused(webhooks: httpx.AsyncClient, text: bytes) -> None:
    for path in PATHS:
        answer = await webhooks.post(path, content=text)
        assert (answer.status_code, bool(answer.text)) == (400, True)
