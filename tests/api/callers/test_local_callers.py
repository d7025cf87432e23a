"""Who is the administrator for being on this machine: the users that are meant, and no process of anybody else."""

import asyncio
import grp
import json
import os
import pwd
import socket
from pathlib import Path

import pytest

from kuma.api.http.access_control import LocalAdmins
from kuma.app.configuration.settings import AuthnSection
from kuma.app.local_admins import local_admins
from kuma.base.errors import Misconfigured
from kuma.base.system.peer_users import PeerUsers
from kuma.store.manager import ResourceManager
from tests.api.test_api import US, api, application, manager  # noqa: F401
from tests.fakes.control_plane import Running, running

NOBODY = 65534
CALL = "exec 3<>/dev/tcp/127.0.0.1/$0; printf '%b' \"$1\" >&3; cat <&3"
PEERS = PeerUsers.of_this_system()


async def status(cp: Running, request: str, user: int | None = None) -> tuple[int, str]:
    """What a process of another user gets for one request over a connection of its own: status and body."""
    head = f"{request} HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", CALL, str(await cp.api_port()), head,
        stdout=asyncio.subprocess.PIPE, user=user, group=user, extra_groups=None if user is None else [],
    )  # fmt: skip
    answer, _ = await process.communicate()
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_process_of_another_user_is_not_the_administrator(cp: Running) -> None:
    """A reverse proxy that adds no header, a browser, a workload: they call from here, for whomever."""
    assert (await status(cp, "GET /secrets"))[0] == 200
    for asked in ("GET /secrets", "GET /meshes", "DELETE /meshes/default", "POST /tokens/user"):
        found, body = await status(cp, asked, NOBODY)
        assert found == 403, asked
        assert "KUMA_API_SERVER_AUTHN_LOCALHOST_ADMIN_USERS" in json.loads(body)["detail"]
    found, body = await status(cp, "GET /who-am-i", NOBODY)
    assert (found, json.loads(body)["name"]) == (200, "mesh-system:anonymous")
    refused = [json.loads(line) for line in (await asyncio.to_thread(audit_file(cp).read_text)).splitlines()]
    assert [line["localUser"] for line in refused if line["event"] == "refused"] == [NOBODY] * 4


async def test_a_user_that_is_named_is(tmp_path: Path) -> None:
    authn = {"authn": {"localhost_admin_users": ["nobody"]}}
    async with running(tmp_path, api_server={"http": {"port": 0}, "https": {"port": 0}, **authn}) as cp:
        assert (await status(cp, "GET /secrets", NOBODY))[0] == 200


async def test_whoever_is_gone_is_not_the_administrator(cp: Running) -> None:
    """Of a socket that is closed the kernel says that it is root's."""
    where = "127.0.0.1", await cp.api_port()
    with socket.create_connection(where) as client:
        client.send(b"DELETE /meshes/default HTTP/1.1\r\nhost: localhost\r\n\r\n")
    while '"refused"' not in audit_file(cp).read_text():
        await asyncio.sleep(0.01)
    assert (await status(cp, "GET /meshes/default"))[0] == 200


def audit_file(cp: Running) -> Path:
    return cp.directory / "audit.jsonl"


@pytest.mark.parametrize("user", [None, 12345])
async def test_who_is_not_known_is_told_what_to_do(manager: ResourceManager, user: int | None) -> None:  # noqa: F811
    api = application(manager)  # noqa: F811
    answer = await api("GET", "/secrets", user=user)
    assert answer.status_code == 403
    assert "send the token of a user" in answer.json()["detail"]
    assert (
        await application(manager, local_admins=LocalAdmins(everybody=True))("GET", "/secrets", user=user)
    ).is_success


def test_the_settings_name_users_and_groups() -> None:
    someone = pwd.getpwall()[-1]
    group = grp.getgrgid(someone.pw_gid).gr_name
    assert local_admins(AuthnSection(), PEERS).users == {0, US}
    assert local_admins(AuthnSection(localhost_admin_users=(someone.pw_name, "4711")), PEERS).users == {
        0, US, someone.pw_uid, 4711,
    }  # fmt: skip
    assert someone.pw_uid in local_admins(AuthnSection(localhost_admin_groups=(group,)), PEERS).users
    assert local_admins(AuthnSection(localhost_admin_users=("*",)), None).include(None)
    for nobody in (
        AuthnSection(localhost_is_admin=False),
        AuthnSection(localhost_is_admin=False, localhost_admin_users=("*",)),
    ):
        assert not local_admins(nobody, PEERS)


@pytest.mark.parametrize("name", ["users", "groups"])
def test_a_name_that_nobody_has_is_said(name: str) -> None:
    with pytest.raises(Misconfigured, match=f'LOCALHOST_ADMIN_{name.upper()}: there is no {name[:-1]} "nosuch"'):
        local_admins(AuthnSection.model_validate({f"localhost_admin_{name}": ("nosuch",)}), PEERS)


def test_a_system_that_does_not_tell_users_apart_lets_nobody_in_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = local_admins(AuthnSection(), None)
    assert (found.include(None), os.geteuid() in found.users) == (False, True)
    assert "nobody is the administrator without a token" in capsys.readouterr().out
