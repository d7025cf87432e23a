"""Whoever reaches the webhooks without being the API server gets nothing by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.kubernetes.webhooks.app import create_app
from kuma.kubernetes.webhooks.injector import Injector
from tests.fakes.patience import PATIENCE
from tests.kubernetes.pods.test_injection import NATIVE, PLAIN, pod


class Namespaces:
    """The Kubernetes API, of which this is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, path: str) -> Any:
        self.asked.append(path)
        return PLAIN


async def posted(injector: Injector, content: bytes) -> httpx.Response:
    app = create_app({"/inject-sidecar": injector.answer})
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://webhooks", timeout=PATIENCE
    ) as client:
        return await client.post("/inject-sidecar", content=content)


@pytest.mark.parametrize("namespace", ["shop/secrets/token", "../secrets", "shop?watch=true", "shop#"])
async def test_a_namespace_that_is_a_path_has_nothing_else_asked_for(namespace: str, tmp_path: Path) -> None:
    asked, ca = Namespaces(), tmp_path / "ca"
    ca.write_text("CA")
    injector = Injector(asked, None, NATIVE, ca, "kuma-system")  # type: ignore[arg-type]
    review = {"uid": "1", "operation": "CREATE", "kind": {"kind": "Pod"}, "userInfo": {}, "object": pod()}
    content = json.dumps({"request": {**review, "namespace": namespace}}).encode()
    assert (await posted(injector, content)).status_code == 200
    (path,) = asked.asked
    assert path.startswith("/api/v1/namespaces/")
    assert not set("/?#") & set(path.removeprefix("/api/v1/namespaces/"))


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"[" * 100_000, 400), (b"{", 400), (b" " * ((8 << 20) + 1), 413)],
    ids=["deep", "torn", "long"],
)
async def test_what_is_no_review_is_turned_away(content: bytes, status: int, tmp_path: Path) -> None:
    injector = Injector(Namespaces(), None, NATIVE, tmp_path / "ca", "kuma-system")  # type: ignore[arg-type]
    assert (await posted(injector, content)).status_code == status
