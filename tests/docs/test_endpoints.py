"""`docs/security.md` lists every endpoint and who may call it, as tried out here. Write it anew with `pytest --bless`.

The table is not what we believe: each route is called by an administrator, a user, and somebody unknown from elsewhere.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Route

from kuma.admission.mesh_rules import MeshRules
from kuma.api.app import create_app
from kuma.api.context import ApiContext, ApiSettings, Tokens
from kuma.api.http.access_control import LocalAdmins
from kuma.api.http.request_limits import RequestLimits
from kuma.api.routes import absent
from kuma.base.clock import SystemClock
from kuma.base.values.rate_limit import Rate
from kuma.resources import kinds
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.tokens.user_tokens import UserTokens
from tests.api.test_api import DATAPLANE, MESH, PERMISSION, SECRET, US, Api, issue

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- endpoints -->\n", "<!-- end of endpoints -->\n"
PUBLIC = {"/", "/who-am-i", "/docs", "/docs/swagger-ui.js", "/docs/swagger-ui.css", "/openapi.json"}
"""What somebody unknown may read: what this is, whom they are taken for, and what could be asked."""
VALUES = {"mesh": "default", "name": "nobody"}


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path that the application answers, from its own table of routes."""
    for route in _flat(app.routes):
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield method, route.path


def _flat(found: Iterable[Any]) -> Iterator[Route]:
    for route in found:
        if isinstance(route, Route):
            yield route
        else:  # a router that was included; anything else has no routes, and fails here
            yield from _flat(route.original_router.routes)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    yield ResourceManager(store, {"Mesh": MeshRules(SystemClock())})
    await store.close()


async def test_every_endpoint_is_listed_with_who_may_call_it(
    manager: ResourceManager, request: pytest.FixtureRequest
) -> None:
    users = UserTokens(manager.store, SystemClock())
    await users.ensure(admin_token=True)

    async def verify(token: str) -> tuple[str, tuple[str, ...]]:
        user = await users.verify(token)
        return user.name, user.groups

    limits = RequestLimits(Rate(1e6, 10**6))
    app = create_app(
        ApiContext(
            manager=manager,
            instance="cp",
            settings=ApiSettings(LocalAdmins(frozenset({US}))),
            tokens=Tokens(issue=issue, issue_user=users.issue, verify=verify),
            limits=limits,
        )
    )
    api = Api(app)
    for body in (MESH, DATAPLANE, PERMISSION, SECRET):
        assert (await api.put(body)).status_code in (200, 201)
    token = (await api("POST", "/tokens/user", json={"name": "john", "validFor": "1h"})).text
    found: dict[str, dict[str, list[str]]] = {}
    for method, path in routes(app):
        who = await _who_may(api, method, path, {"authorization": f"Bearer {token}"})
        assert who != "everybody" or path in PUBLIC, f"{method} {path} answers somebody unknown"
        found.setdefault(path, {}).setdefault(who, []).append(method)
    text = _table(found)
    if request.config.getoption("--bless"):
        page = PAGE.read_text()
        PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: BEGIN + text + END, page, flags=re.DOTALL))
    assert BEGIN + text + END in PAGE.read_text()


async def _who_may(api: Api, method: str, path: str, user: dict[str, str]) -> str:
    url = path.format(**VALUES)
    body: Any = {"json": {}} if method in ("PUT", "POST") else {}
    refused = (401, 403)
    if (await api(method, url, peer="10.0.0.9", **body)).status_code not in refused:
        return "everybody"
    if (await api(method, url, peer="10.0.0.9", headers=user, **body)).status_code not in refused:
        return "users"
    assert (await api(method, url, **body)).status_code not in refused, f"{method} {path}: nobody may"
    return "administrators"


def _table(found: dict[str, dict[str, list[str]]]) -> str:
    shown = {path: who for path, who in found.items() if not _is_absent(path)}
    rows = [
        f"| `{path}` | {', '.join(methods)} | {who} |\n"
        for path, by_who in sorted(shown.items())
        for who, methods in by_who.items()
    ]
    return "| Path | Methods | Who |\n|---|---|---|\n" + "".join(rows)


def _is_absent(path: str) -> bool:
    """The kinds of the original that have no effect here are one sentence in the page, not eighty rows."""
    kind = path.removeprefix("/meshes/{mesh}").strip("/").split("/")[0]
    return kind in (*absent.GLOBAL, *absent.IN_MESH, *(stored.path for stored in kinds.STORED_ONLY))
