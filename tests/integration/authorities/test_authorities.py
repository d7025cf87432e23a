"""Another authority under the name of the old one; and callers that are more than one service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from demo.processes import free_ports
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Position
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.integration.changes import edit_inbounds, revoke, secrets, tagged, transition
from tests.integration.sidecars import Sidecars, traffic, until

BUILTIN = {"type": "builtin"}


@pytest.fixture
def declared() -> tuple[str, ...]:
    return MTLS, ALLOW_ALL


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
    web, _ = await mesh.pair("tcp")
    await secrets(cp, **vars(one))
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
                await (secrets(cp, **{name: text}) if name else cp.apply(text))
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


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_a_caller_of_two_services_is_refused_when_either_is(cp: Running, mesh: Sidecars, protocol: str) -> None:
    not_api = mesh_permission("not-api", "Deny", "kind: MeshService, name: api")
    await cp.apply(mesh_permission("all", "Allow", "kind: Mesh"), not_api)
    await mesh.start("backend", protocol=protocol)
    web, other = [await mesh.start(name, protocol=protocol, calls=("backend",)) for name in ("web", "other")]
    (port,) = free_ports(1)
    await edit_inbounds(cp, web, lambda inbound: (inbound, tagged(inbound, {"kuma.io/service": "api"}, port=port)))
    await mesh.converged()
    proxy = cp.parts.proxies.get(kinds.DATAPLANE.key("web-01", "default"))
    assert proxy is not None
    assert proxy.keeper.identity is not None
    assert set(proxy.keeper.identity.uris) == {"spiffe://default/web", "spiffe://default/api"}
    await until("other reaches backend", lambda: other.reaches("backend"))
    assert (await web.reaches("backend"), await other.reaches("backend")) == (False, True)
    await revoke(cp, not_api)
    assert (await web.reaches("backend"), await other.reaches("backend")) == (True, True)
