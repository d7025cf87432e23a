"""Another authority under the name of the old one; and callers that are more than one service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from demo.processes import free_ports
from kuma.resources import kinds
from kuma.resources.mesh_transition import Position
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.integration.sidecars import Sidecar, Sidecars, sidecars, traffic, until
from tests.integration.test_transitions import pair, secret, transition

BUILTIN = {"type": "builtin"}


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        await found.apply(MTLS, ALLOW_ALL)
        yield found


@pytest.fixture
async def mesh(cp: Running, tmp_path: Path) -> AsyncIterator[Sidecars]:
    async with sidecars(cp, tmp_path) as found:
        yield found


def same_name(backend: dict[str, Any]) -> str:
    """The Mesh with `ca-1` as the only backend, whatever it is made of."""
    mtls = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", **backend}]}
    return json.dumps({"type": "Mesh", "name": "default", "mtls": mtls})


def provided(cert: dict[str, str], key: dict[str, str]) -> dict[str, Any]:
    return {"type": "provided", "conf": {"cert": cert, "key": key}}


class Positions:
    """The positions that the mesh has been at since the last look."""

    def __init__(self, cp: Running) -> None:
        self._cp = cp
        self.seen: list[Position] = []
        cp.parts.views.on_change(lambda _: self._note())

    def _note(self) -> None:
        position = self._cp.parts.views.view("default").position
        if not self.seen or self.seen[-1] != position:
            self.seen.append(position)

    def since_then(self) -> list[Position]:
        found, self.seen = self.seen, self.seen[-1:]
        return found


async def test_another_authority_under_the_same_name_is_a_staged_change(
    cp: Running, mesh: Sidecars, tmp_path: Path
) -> None:
    """Another type, another content of its Secrets, another `conf`: no request fails, each being a new handshake."""
    one, two, three = [cas.root(tmp_path, name, days="60") for name in ("one", "two", "three")]
    web, _ = await pair(mesh)
    for name, text in vars(one).items():
        await secret(cp, name, text)
    positions = Positions(cp)
    from_secrets = provided({"secret": "cert"}, {"secret": "key"})
    inline = provided({"inlineString": three.cert}, {"inlineString": three.key})
    first: str = (await transition(cp)).position.roots[0]

    async def arrived(root: str) -> bool:
        found = await transition(cp)
        return bool(found.complete and found.position.roots == (root,))

    async def changed_to(root: str, *changes: tuple[str, str]) -> None:
        old = cp.parts.views.view("default").position
        positions.since_then()
        async with traffic(lambda: web.talk("backend")) as answers:
            for name, text in changes:
                await (secret(cp, name, text) if name else cp.apply(text))
            await until("the new root is the only one", lambda: arrived(root))
        assert set(answers) == {b"backend:hello"}
        passed = positions.since_then()
        both = [p.authority for p in passed if set(p.roots) == {*old.roots, root}]
        assert both[0] == old.authority, "everybody trusts the new root before anybody shows its certificates"
        assert both[-1] == passed[-1].authority != old.authority, "and the old one until nobody does any more"

    await changed_to(one.cert, ("", same_name(from_secrets)))
    await changed_to(two.cert, ("cert", two.cert), ("key", two.key))
    await changed_to(three.cert, ("", same_name(inline)))

    async def forgotten() -> bool:
        return not any(".ca-builtin-" in name for name in cp.parts.views.view("default").secrets)

    await until("the builtin root is gone: nothing live depends on it", forgotten)
    async with traffic(lambda: web.talk("backend")) as answers:
        await cp.apply(same_name(BUILTIN))
        fresh = (await cp.parts.manager.get(kinds.SECRET.key("default.ca-builtin-cert-ca-1", "default"))).spec.data
        await until("the fresh root is the only one", lambda: arrived(fresh.decode()))
    assert set(answers) == {b"backend:hello"}
    serials = {x509.load_pem_x509_certificate(pem).serial_number for pem in (first.encode(), fresh)}
    assert len(serials) == 2, "a name that comes back is not given its old key"


def mesh_permission(name: str, action: str, ref: str) -> str:
    return (
        f"{{type: MeshTrafficPermission, mesh: default, name: {name}, spec: {{targetRef: {{kind: MeshService, "
        f"name: backend}}, from: [{{targetRef: {{{ref}}}, default: {{action: {action}}}}}]}}}}"
    )


async def as_two_services(cp: Running, sidecar: Sidecar, other: str, port: int) -> None:
    """Have a proxy be another service as well."""
    stored = await cp.parts.manager.get(kinds.DATAPLANE.key(f"{sidecar.name}-01", "default"))
    first = stored.spec.net.inbound[0]
    second = first.model_copy(update={"port": port, "tags": {**first.tags, "kuma.io/service": other}})
    net = stored.spec.net.model_copy(update={"inbound": (first, second)})
    await cp.apply_resource(stored.with_spec(stored.spec.model_copy(update={"networking": net})))


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_a_caller_of_two_services_is_refused_when_either_is(cp: Running, mesh: Sidecars, protocol: str) -> None:
    not_api = mesh_permission("not-api", "Deny", "kind: MeshService, name: api")
    await cp.apply(mesh_permission("all", "Allow", "kind: Mesh"), not_api)
    await mesh.start("backend", protocol=protocol)
    web, other = [await mesh.start(name, protocol=protocol, calls=("backend",)) for name in ("web", "other")]

    async def admitted(caller: Sidecar) -> bool:
        if protocol == "http":
            return await caller.call("backend") == 200
        return await caller.talk("backend") == b"backend:hello"

    await as_two_services(cp, web, "api", *free_ports(1))
    await mesh.converged()
    proxy = cp.parts.proxies.get(kinds.DATAPLANE.key("web-01", "default"))
    assert proxy is not None
    assert proxy.keeper.identity is not None
    assert set(proxy.keeper.identity.uris) == {"spiffe://default/web", "spiffe://default/api"}
    assert await until("other reaches backend", lambda: admitted(other))
    assert (await admitted(web), await admitted(other)) == (False, True)
    await cp.delete(not_api)
    await cp.parts.views.until(lambda: len(cp.parts.views.view("default").mesh_permissions) == 1)
    await mesh.converged()
    assert (await admitted(web), await admitted(other)) == (True, True)
