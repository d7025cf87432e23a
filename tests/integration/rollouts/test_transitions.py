"""Changes of a mesh's mutual TLS on live traffic: every request is a new TCP connection, and so a new TLS handshake."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.processes import BIN
from kuma.base import aio
from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Level
from soak.authorities import Provided, Root, is_let_in
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.fakes.patience import PATIENCE
from tests.integration.changes import change, secrets, transition
from tests.integration.sidecars import Sidecar, Sidecars, exchange, more, traffic, until

OFF = "{type: Mesh, name: default}"
CA_1, CA_2 = "{name: ca-1, type: builtin}", "{name: ca-2, type: builtin}"
RSA = "{name: ca-rsa, type: builtin, conf: {caCert: {RSAbits: 2048}}}"
PROVIDED = "{name: own, type: provided, conf: {cert: {secret: cert}, key: {secret: key}}}"


def mtls(*backends: str, enabled: str) -> str:
    return f"{{type: Mesh, name: default, mtls: {{enabledBackend: {enabled}, backends: [{', '.join(backends)}]}}}}"


PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")


@pytest.fixture
def declared() -> tuple[str, ...]:
    return (ALLOW_ALL,)


@pytest.fixture
def xds_server() -> dict[str, Any]:
    return {"transition_patience": "10m"}  # nobody is given up because the machine stands still


async def changed_under_traffic(cp: Running, web: Sidecar, *meshes: str) -> None:
    """No request fails while one Mesh after the other is applied."""
    for found in meshes:
        async with traffic(lambda: web.talk("backend")) as answers:
            await more(answers)
            await change(cp, found)
            await more(answers)
        assert set(answers) == {b"backend:hello"}, found


async def test_on_off_and_on_again(cp: Running, mesh: Sidecars) -> None:
    web, backend = await mesh.pair("tcp")
    for _ in range(2):
        await changed_under_traffic(cp, web, MTLS)
        assert b"backend" not in await exchange(backend.port, b"hello")
        await changed_under_traffic(cp, web, OFF)
        assert await exchange(backend.port, b"hello") == b"backend:hello"


async def test_strict_permissive_strict(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS)
    web, backend = await mesh.pair("tcp")
    for _ in range(2):
        await changed_under_traffic(cp, web, PERMISSIVE)
        assert await exchange(backend.port, b"hello") == b"backend:hello"
        await changed_under_traffic(cp, web, MTLS)
        assert b"backend" not in await exchange(backend.port, b"hello")


async def test_another_authority_with_the_old_one_kept_or_removed(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    await cp.apply(MTLS)
    web, _ = await mesh.pair("tcp")
    await secrets(cp, **vars(cas.root(tmp_path, "own", days="60")))
    await changed_under_traffic(
        cp,
        web,
        mtls(CA_1, CA_2, enabled="ca-2"),
        mtls(CA_1, enabled="ca-1"),
        mtls(RSA, enabled="ca-rsa"),
        mtls(PROVIDED, enabled="own"),
        mtls(CA_2, enabled="ca-2"),
    )
    (root,) = (await transition(cp)).position.roots
    stored = await cp.parts.manager.get(kinds.SECRET.key("default.ca-builtin-cert-ca-2", "default"))
    assert root.encode() == stored.spec.data, "nothing retired is trusted any more"


async def builtin_pair(cp: Running, name: str) -> Provided:
    parts = [f"default.ca-builtin-{part}-{name}" for part in ("cert", "key")]
    return Provided(*[(await cp.parts.manager.get(kinds.SECRET.key(part, "default"))).spec.data for part in parts])


async def lets_in(sidecar: Sidecar, authority: Provided) -> bool:
    return await asyncio.to_thread(is_let_in, sidecar.port, authority, "spiffe://default/web")


@pytest.mark.parametrize("others", ["kept", "removed"])
async def test_a_retired_authority_is_let_in_nowhere_once_the_change_is_complete(
    cp: Running, mesh: Sidecars, others: str
) -> None:
    await cp.apply(mtls(CA_1, CA_2, enabled="ca-1"))
    web, backend = await mesh.pair("tcp")
    first = await builtin_pair(cp, "ca-1")
    assert await lets_in(backend, first), "the attempt itself is right"
    await changed_under_traffic(cp, web, mtls(*([CA_1] if others == "kept" else []), CA_2, enabled="ca-2"))
    assert await lets_in(backend, await builtin_pair(cp, "ca-2"))
    assert await lets_in(backend, first) is (others == "kept"), "what is listed is trusted, and nothing else"


async def test_every_request_is_a_handshake_and_http_survives_changes_too(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS)
    web, _ = await mesh.pair("tcp")
    await mesh.start("shop")
    client = await mesh.start("client", calls=("shop",))
    assert await until("client reaches shop", lambda: client.call("shop")) == 200

    async def handshakes() -> int:
        async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as admin:
            found = await admin.get(f"http://127.0.0.1:{web.admin}/stats?filter=cluster.backend.ssl.handshake")
        return int(found.text.rpartition(": ")[2])

    before = await handshakes()
    async with traffic(lambda: web.talk("backend")) as plain, traffic(lambda: client.call("shop")) as http:
        await more(plain)
        assert await handshakes() - before >= len(plain) - 1
        for declared in (PERMISSIVE, mtls(CA_2, enabled="ca-2"), OFF, mtls(RSA, enabled="ca-rsa"), MTLS):
            await change(cp, declared)
            await more(plain)
            await more(http)
    assert set(plain) == {b"backend:hello"}
    assert set(http) == {200}


async def test_another_intermediate_under_the_same_root_and_again_before_the_first_has_come(
    cp: Running, mesh: Sidecars
) -> None:
    root = Root("a root of their own")
    authorities = [root.intermediate(name) for name in ("one", "two", "three")]

    async def provide(authority: Provided) -> None:
        await secrets(cp, cert=authority.chain.decode(), key=authority.key.decode())

    await provide(authorities[0])
    await cp.apply(mtls(PROVIDED, enabled="own"))
    web, backend = await mesh.pair("tcp")
    async with traffic(lambda: web.talk("backend")) as answers:
        await provide(authorities[1])
        await provide(authorities[2])

        async def complete() -> Any:
            issued = {proxy.keeper.identity.chain_pem for proxy in cp.parts.proxies if proxy.keeper.identity}
            middle = authorities[2].chain.split(b"-----END CERTIFICATE-----")[0]
            return (await transition(cp)).complete and all(middle in chain for chain in issued)

        await until("all leaves are of the third intermediate", complete)
        await more(answers)
    assert set(answers) == {b"backend:hello"}
    assert await lets_in(backend, authorities[2])


async def test_other_content_in_the_secrets_of_a_provided_authority(
    cp: Running, mesh: Sidecars, tmp_path: Path
) -> None:
    one, two = cas.root(tmp_path, "one", days="60"), cas.root(tmp_path, "two", days="60")
    await secrets(cp, **vars(one))
    await cp.apply(mtls(PROVIDED, enabled="own"))
    web, _ = await mesh.pair("tcp")
    async with traffic(lambda: web.talk("backend")) as answers:
        await secrets(cp, **vars(two))

        async def complete() -> bool:
            found = await transition(cp)
            return bool(found.complete and found.position.roots == (two.cert,))

        await until("the new root is the only one", complete)
    assert set(answers) == {b"backend:hello"}


async def test_a_change_of_mind_half_way(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS)
    web, _ = await mesh.pair("tcp")
    async with traffic(lambda: web.talk("backend")) as answers:
        for _ in range(5):
            await cp.apply(mtls(CA_1, CA_2, enabled="ca-2"))
            await asyncio.sleep(0.03)
            await cp.apply(OFF)
            await asyncio.sleep(0.05)
            await cp.apply(mtls(CA_2, enabled="ca-2"))
            await asyncio.sleep(0.02)
            await cp.apply(MTLS)
        await change(cp, mtls(CA_2, CA_1, enabled="ca-2"))
    assert set(answers) == {b"backend:hello"}


@pytest.mark.parametrize("xds_server", [{"transition_patience": "10s"}])
async def test_a_hung_proxy_holds_nothing_up_for_long_and_is_named(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS)
    web, _ = await mesh.pair("tcp")
    other = await mesh.start("other", protocol="tcp")
    with other.hung():
        async with traffic(lambda: web.talk("backend")) as answers:
            await cp.apply(mtls(CA_1, CA_2, enabled="ca-2"))

            async def named() -> Any:
                return [awaited.name for awaited in (await transition(cp)).unresponsive] == ["other-01"]

            await until("the hung proxy is named", named)
            assert not (await transition(cp)).complete
        assert set(answers) == {b"backend:hello"}
        await cp.delete(ALLOW_ALL)
        at_once = "a permission that is taken away acts at once, also inside a change"
        await until(at_once, lambda: web.is_refused("backend"))
        assert not (await transition(cp)).complete

    async def complete() -> Any:
        return (await transition(cp)).complete

    await until("it is brought up to date when it returns", complete)


async def test_a_permission_taken_away_acts_while_callers_still_send_plaintext(cp: Running, mesh: Sidecars) -> None:
    """A hung proxy holds the mesh up where inbounds accept both; nobody is admitted any more, so nobody is let in."""
    await cp.apply(OFF)
    web, _ = await mesh.pair("tcp")
    other = await mesh.start("other", protocol="tcp")
    with other.hung():
        await cp.apply(MTLS)

        async def accepting() -> bool:
            return cp.parts.views.view("default").position.level == Level.ACCEPTING

        await until("inbounds accept both", accepting)
        assert await web.talk("backend") == b"backend:hello"
        await cp.delete(ALLOW_ALL)
        await until("nobody is let in", lambda: web.is_refused("backend"))
        assert await accepting(), "the hung proxy still holds the mesh up"


async def test_a_new_proxy_of_a_strict_mesh_never_accepts_plaintext(cp: Running, mesh: Sidecars) -> None:
    await change(cp, MTLS)
    stop = asyncio.Event()
    answers: list[bytes] = []
    starting = aio.spawn(mesh.start("backend", protocol="tcp"), name="start")

    async def knock() -> None:
        while not stop.is_set():
            for sidecar in mesh.started:
                answers.append(await exchange(sidecar.port, b"hello"))
            await asyncio.sleep(0.01)

    knocking = aio.spawn(knock(), name="knock")
    await starting
    stop.set()
    await knocking
    assert not any(b"backend" in answer for answer in answers)


async def test_a_builtin_root_is_renewed_under_traffic(cp: Running, mesh: Sidecars) -> None:
    """The shortest root lives a minute; it is renewed after four fifths of that."""
    await cp.apply(MTLS.replace("type: builtin", "type: builtin, conf: {caCert: {expiration: 1m}}"))
    web, _ = await mesh.pair("tcp")
    (first,) = (await transition(cp)).position.roots
    async with traffic(lambda: web.talk("backend")) as answers:

        async def renewed() -> bool:
            found = await transition(cp)
            return bool(found.complete and len(found.position.roots) == 1 and found.position.roots != (first,))

        await until("the new root is the only one", renewed)
        await more(answers)
    assert set(answers) == {b"backend:hello"}


async def test_an_export_that_is_applied_again_changes_nothing_for_callers(
    cp: Running, mesh: Sidecars, tmp_path: Path
) -> None:
    """All of it goes through the real command, twice, and mutual TLS is on at every instant."""
    await cp.apply(MTLS)
    web, backend = await mesh.pair("tcp")
    before = (await transition(cp)).position
    seen = set[Level]()
    cp.parts.views.on_change(lambda _: seen.add(cp.parts.views.view("default").position.level))
    api = f"http://127.0.0.1:{await cp.api_port()}"
    config = ["--config-file", str(tmp_path / "kumactl.yaml")]

    async def kumactl(*arguments: str, given: bytes = b"") -> bytes:
        process = await asyncio.create_subprocess_exec(
            str(BIN / "kumactl"), *config, *arguments, stdin=-1, stdout=-1, stderr=-1
        )
        out, err = await process.communicate(given)
        assert process.returncode == 0, err.decode()
        return out

    await kumactl("config", "control-planes", "add", "--name", "here", "--address", api)
    async with (
        traffic(lambda: web.talk("backend")) as answers,
        traffic(lambda: exchange(backend.port, b"hello")) as plain,
    ):
        await more(answers)
        for _ in range(2):
            await kumactl("apply", "-f", "-", given=await kumactl("export"))
            await more(answers)
    assert set(answers) == {b"backend:hello"}
    assert not any(b"backend" in answer for answer in plain), "a plaintext caller was let in"
    assert seen <= {Level.STRICT}
    assert (await transition(cp)).position == before, "nobody got another authority"


async def test_proxies_that_join_leave_and_die_inside_a_change(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS)
    web, _ = await mesh.pair("tcp")
    leaving, dying = [await mesh.start(name, protocol="tcp", calls=("backend",)) for name in ("leaving", "dying")]
    async with traffic(lambda: web.talk("backend")) as answers:
        await cp.apply(mtls(CA_2, enabled="ca-2"))
        dying.running.kill()
        await dying.running.wait()
        leaving.running.send_signal(signal.SIGTERM)
        late = await mesh.start("late", protocol="tcp", calls=("backend",))

        async def complete() -> Any:
            found = await transition(cp)
            return found.complete and "ca-2" in found.goal

        async def dead_is_named() -> bool:
            return [awaited.name for awaited in (await transition(cp)).unresponsive] == ["dying-01"]

        await until("who has died without a word may go on, as far as is known", dead_is_named)
        await cp.parts.manager.delete(kinds.DATAPLANE.key("dying-01", "default"))
        await until("the change is complete", complete)
    assert set(answers) == {b"backend:hello"}
    assert await late.talk("backend") == b"backend:hello"
