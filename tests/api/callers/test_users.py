"""Who may do what in the API: user tokens, groups, grants, revocation."""

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from kuma.admission.mesh_rules import MeshRules
from kuma.api.http.access_control import Access, Grant, LocalAdmins
from kuma.base.clock import SystemClock
from kuma.base.errors import Unauthenticated
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.tokens import dataplane_tokens
from kuma.tokens.user_tokens import ADMIN_TOKEN, UserTokens
from tests.api.test_api import MESH, PERMISSION, SECRET, Api, application
from tests.fakes.clock import ManualClock

REMOTE = "10.0.0.9"
HOUR = timedelta(hours=1)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    found = ResourceManager(store, {"Mesh": MeshRules(SystemClock())})
    await UserTokens(store, SystemClock()).ensure(admin_token=True)
    yield found
    await store.close()


@pytest.fixture
async def api(manager: ResourceManager) -> Api:
    found = application(manager)
    await found.put(MESH)
    await found.put(SECRET)
    return found


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def user(api: Api, name: str, *groups: str) -> dict[str, str]:
    """The headers of a user, made as an administrator makes them."""
    answer = await api("POST", "/tokens/user", json={"name": name, "groups": list(groups), "validFor": "1h0m0s"})
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/plain")
    return bearer(answer.text)


async def test_a_user_may_do_everything_but_what_is_secret(api: Api) -> None:
    john = await user(api, "john", "team-a")
    found = (await api("GET", "/who-am-i", peer=REMOTE, headers=john)).json()
    assert found == {"name": "john", "groups": ["team-a", "mesh-system:authenticated"]}
    path = "/meshes/default/traffic-permissions/all"
    assert (await api("PUT", path, peer=REMOTE, headers=john, json=PERMISSION)).status_code == 201
    assert (await api("GET", path, peer=REMOTE, headers=john)).status_code == 200
    for method, forbidden in (
        ("GET", "/meshes/default/secrets/s"),
        ("GET", "/secrets"),
        ("GET", "/global-secrets/admin-user-token"),
        ("POST", "/tokens/dataplane"),
        ("POST", "/tokens/user"),
        ("PUT", "/meshes/default"),
        ("DELETE", "/meshes/default"),
    ):
        answer = await api(method, forbidden, peer=REMOTE, headers=john, json={})
        assert answer.status_code == 403, forbidden
        assert 'user "john/team-a,mesh-system:authenticated" cannot access' in answer.json()["detail"]


async def test_the_token_of_the_administrator_is_there_from_the_start(api: Api, manager: ResourceManager) -> None:
    stored = await api("GET", f"/global-secrets/{ADMIN_TOKEN}")
    admin = bearer(base64.b64decode(stored.json()["data"]).decode())
    remote = application(manager, local_admins=LocalAdmins())
    assert (await remote("GET", "/meshes/default/secrets/s", headers=admin)).status_code == 200
    assert (await remote("GET", "/meshes/default/secrets/s")).status_code == 403


async def test_a_group_can_be_given_secrets_or_tokens(manager: ResourceManager) -> None:
    access = Access(
        admin_resources=Grant.of((), ("vault", "mesh-system:admin")), generate_dp_token=Grant.of(("ci",), ())
    )
    api = application(manager, access=access)
    await api.put(MESH)
    vault, ci = await user(api, "v", "vault"), await user(api, "ci")
    asked = {"mesh": "default", "validFor": "1h0m0s"}
    assert (await api("GET", "/secrets", headers=vault)).status_code == 200
    assert (await api("GET", "/secrets", headers=ci)).status_code == 403
    assert (await api("POST", "/tokens/dataplane", headers=ci, json=asked)).status_code == 200
    assert (await api("POST", "/tokens/dataplane", headers=vault, json=asked)).status_code == 403


async def test_a_revoked_token_is_401_at_once(api: Api, manager: ResourceManager) -> None:
    import jwt

    john, jane = await user(api, "john"), await user(api, "jane")
    jti = jwt.decode(john["authorization"].split()[1], options={"verify_signature": False})["jti"]
    await manager.put(
        Resource(kinds.GLOBAL_SECRET.key("user-token-revocations"), SecretSpec(data=f"other, {jti}\n".encode()))
    )
    answer = await api("GET", "/meshes", headers=john)
    assert (answer.status_code, "has been revoked" in answer.json()["detail"]) == (401, True)
    assert (await api("GET", "/meshes", headers=jane)).status_code == 200
    assert (await api("GET", "/", headers=john)).status_code == 200  # what this is, anybody may ask


async def test_signing_keys_rotate(api: Api, manager: ResourceManager) -> None:
    old = await user(api, "john")
    first = await manager.get(kinds.GLOBAL_SECRET.key("user-token-signing-key-1"))
    second = await dataplane_tokens.new_signing_key("x")
    await manager.put(Resource(kinds.GLOBAL_SECRET.key("user-token-signing-key-2"), second.spec))
    new = await user(api, "john")
    assert [(await api("GET", "/meshes", headers=each)).status_code for each in (old, new)] == [200, 200]
    await manager.delete(first.key)
    assert [(await api("GET", "/meshes", headers=each)).status_code for each in (old, new)] == [401, 200]


async def test_a_dataplane_token_is_no_user_token(api: Api, manager: ResourceManager) -> None:
    secrets = {s.name: s for s in (await manager.list("Secret", "default")).items}
    token = dataplane_tokens.issue_token("default", secrets, name="web-01", valid_for=HOUR, now=SystemClock().now())
    assert (await api("GET", "/meshes", headers=bearer(token))).status_code == 401


async def test_a_token_of_one_kind_is_none_of_another_even_under_the_same_key(manager: ResourceManager) -> None:
    users, now = UserTokens(manager.store, SystemClock()), SystemClock().now()
    key = (await manager.get(kinds.GLOBAL_SECRET.key("user-token-signing-key-1"))).spec
    name = dataplane_tokens.signing_key_name("default")
    secrets = {name: Resource(kinds.SECRET.key(name, "default"), key)}
    for made in (
        dataplane_tokens.issue_token("default", secrets, name="mesh-system:admin", valid_for=HOUR, now=now),
        dataplane_tokens.issue_token("default", secrets, valid_for=HOUR, now=now),
    ):
        assert dataplane_tokens.verify_token(made, "default", secrets, now).mesh == "default"
        with pytest.raises(Unauthenticated, match="none of a user"):
            await users.verify(made)
    for groups in ([], ["team"]):
        with pytest.raises(Unauthenticated, match="none of a dataplane"):
            dataplane_tokens.verify_token(await users.issue("web-01", groups, HOUR), "default", secrets, now)


ADMIN_KEY = kinds.GLOBAL_SECRET.key(ADMIN_TOKEN)


async def admin_token(manager: ResourceManager) -> str:
    data: bytes = (await manager.get(ADMIN_KEY)).spec.data
    return data.decode()


async def test_deleting_all_signing_keys_locks_nobody_out_for_good(api: Api, manager: ResourceManager) -> None:
    users, old = UserTokens(manager.store, SystemClock()), await admin_token(manager)
    await manager.delete(kinds.GLOBAL_SECRET.key("user-token-signing-key-1"))
    answer = await api("POST", "/tokens/user", json={"name": "x", "validFor": "1h"})
    assert (answer.status_code, answer.json()["title"]) == (404, "Signing Key not found")
    assert answer.json()["detail"] == (
        'there is no signing key with KID 1. GlobalSecret of name "user-token-signing-key-1" is not found. '
        "If signing key was rotated, regenerate the token"
    )
    await users.ensure(admin_token=True)
    fresh = await admin_token(manager)
    assert fresh != old
    assert "mesh-system:admin" in (await users.verify(fresh)).groups
    await users.ensure(admin_token=True)
    assert await admin_token(manager) == fresh  # one that holds stays


@pytest.mark.parametrize("data", [b"", b"x", b"a.b.c", b"\xff"])
async def test_a_token_of_the_administrator_that_does_not_hold_is_replaced(
    manager: ResourceManager, data: bytes
) -> None:
    users = UserTokens(manager.store, SystemClock())
    await manager.put(Resource(ADMIN_KEY, SecretSpec(data=data)))
    await users.ensure(admin_token=False)
    assert (await manager.get(ADMIN_KEY)).spec.data == data
    await users.ensure(admin_token=True)
    assert (await users.verify(await admin_token(manager))).name == "mesh-system:admin"
    await manager.delete(ADMIN_KEY)
    await users.ensure(admin_token=True)
    assert (await users.verify(await admin_token(manager))).name == "mesh-system:admin"


async def test_a_key_that_cannot_sign_is_no_fault_of_the_caller(api: Api, manager: ResourceManager) -> None:
    await manager.put(Resource(kinds.GLOBAL_SECRET.key("user-token-signing-key-2"), SecretSpec(data=b"no key")))
    answer = await api("POST", "/tokens/user", json={"name": "x", "validFor": "1h"})
    assert answer.status_code == 503
    assert 'Secret "user-token-signing-key-2"' in answer.json()["detail"]
    await UserTokens(manager.store, SystemClock()).ensure(admin_token=True)
    assert (await api("POST", "/tokens/user", json={"name": "x", "validFor": "1h"})).status_code == 200


async def test_a_token_ends(manager: ResourceManager) -> None:
    clock = ManualClock()
    users = UserTokens(manager.store, clock)
    token = await users.issue("john", (), HOUR)
    assert (await users.verify(token)).name == "john"
    clock.advance(3601)
    with pytest.raises(Exception, match="has expired"):
        await users.verify(token)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name", "validFor"}),
        ({"name": "x", "validFor": "1x"}, {"validFor"}),
        ({"name": "x", "validFor": "1h0m0s", "groups": "g"}, {"groups"}),
    ],
)
async def test_user_token_requests_that_make_no_sense(api: Api, body: dict[str, str], fields: set[str]) -> None:
    answer = await api("POST", "/tokens/user", json=body)
    assert answer.status_code == 400
    assert {p["field"] for p in answer.json()["invalid_parameters"]} == fields
    assert (await api("POST", "/tokens/user", json={"name": "x", "groups": None, "validFor": "1h"})).status_code == 200


async def test_another_scheme_is_refused(api: Api) -> None:
    assert (await api("GET", "/meshes", headers={"authorization": "Basic eDp4"})).status_code == 401
