"""A staged change of mutual TLS, held at each of its positions: nobody gets further at any than the rules let them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kuma.pki.authority import LocalAuthority
from kuma.resources.models.mesh_transition import Level, Position
from tests.fakes.control_plane import MTLS, Running, dataplane
from tests.integration.clients import own_authority
from tests.integration.door import DEV, EVIL, GREETING, PROD, WEB, Door, other_authority
from tests.integration.sidecars import Sidecar, Sidecars, exchange, until

OFF = "{type: Mesh, name: default}"
OTHER_CA = MTLS.replace("ca-1", "ca-2")
PERMISSIVE = OTHER_CA.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
BY_NAME = (
    "{type: TrafficPermission, mesh: default, name: web, sources: [{match: {kuma.io/service: web}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)
BY_TAGS = (
    "{type: MeshTrafficPermission, mesh: default, name: rules, spec: "
    "{targetRef: {kind: MeshService, name: vault}, from: ["
    "{targetRef: {kind: MeshServiceSubset, name: web, tags: {env: prod}}, default: {action: Allow}}, "
    "{targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}]}}"
)


@pytest.fixture
def declared() -> tuple[str, ...]:
    return BY_NAME, BY_TAGS


@pytest.fixture
def xds_server() -> dict[str, Any]:
    return {"transition_patience": "1h"}


class Place(NamedTuple):
    """A workload, who may call it, and who may not."""

    workload: Sidecar
    door: Door
    admitted: tuple[str, ...]
    refused: tuple[tuple[str, ...], ...]


class Stepwise:
    """A change that goes on when it is told to: one proxy, which is no Envoy, acknowledges one position at a time."""

    def __init__(self, cp: Running, places: list[Place]) -> None:
        self._cp, self._places = cp, places
        self._acknowledged = self.position

    @property
    def position(self) -> Position:
        return self._cp.parts.views.view("default").position

    async def hold(self) -> None:
        """Have such a proxy come."""
        found = await self._cp.proxy(dataplane("held", "held"))
        found.may_answer = lambda: self.position == self._acknowledged
        await self._cp.settled(len(self._places) + 1)

    async def positions(self, mesh: str) -> AsyncIterator[Position]:
        """Apply a Mesh; yields each position on the way, once all Envoys run it."""
        self._acknowledged = self.position
        await self._cp.apply(mesh)
        while await until("the next position, or the end", self._next) != "complete":
            position = self.position
            await until("Envoys have it", self._envoys_have_it)
            yield position
            self._acknowledged = position

    async def _next(self) -> str:
        if self.position != self._acknowledged:
            return "next"
        transition = self._cp.parts.views.view("default").transition
        return "complete" if transition and transition.spec.complete else ""

    async def _envoys_have_it(self) -> bool:
        names = {f"{place.workload.name}-01" for place in self._places}
        return all(proxy.converged for proxy in self._cp.parts.proxies if proxy.key.name in names)


@pytest.fixture
async def places(cp: Running, mesh: Sidecars, tmp_path: Path) -> AsyncIterator[list[Place]]:
    other = await other_authority()
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for name, admitted, refused in (
            ("backend", (WEB,), ((EVIL,), (EVIL, PROD))),
            ("vault", (WEB, PROD), ((WEB,), (EVIL, PROD), (WEB, PROD, DEV))),
        ):
            workload = await mesh.start(name, protocol="tcp")
            workload.greeting = GREETING
            door = Door(other, workload, tmp_path, other)
            stack.push_async_callback(door.close)
            found.append(Place(workload, door, admitted, refused))
        yield found


async def check(place: Place, position: Position, own: list[LocalAuthority]) -> None:
    """Have everybody call at a position; the last is one who is admitted: whoever came before is seen by then."""
    door, workload = place.door, place.workload
    trusted = [authority for authority in own if authority.roots_pem.decode() in position.roots]
    retired = [authority for authority in own if authority not in trusted]
    is_strict = position.level is Level.STRICT

    async def is_open_to(authority: LocalAuthority) -> bool:
        door.own = authority
        return await door.hears(*place.admitted) == GREETING

    async def is_applied() -> bool:
        """What an Envoy has acknowledged, its worker has a moment later."""
        in_the_clear = (await exchange(workload.port, b"hello")).startswith(GREETING)
        mutual = [await is_open_to(authority) for authority in own]
        return in_the_clear is not is_strict and mutual == [authority in trusted for authority in own]

    await until(f"{workload.name} at {position.level.name}", is_applied)
    seen = workload.reached
    for authority in trusted:
        door.own = authority
        await door.is_shut(*place.refused, plaintext=is_strict)
    for authority in retired:
        door.own = authority
        await door.is_shut(place.admitted, plaintext=is_strict)
    if is_strict:
        assert not (await exchange(workload.port, b"hello")).startswith(GREETING)
    door.own = trusted[-1]
    assert (await door.hears(*place.admitted, says=b"hello")).startswith(GREETING)
    assert workload.reached == seen + 1, position
    await door.close()  # who has said nothing yet would be let in as plaintext once that is admitted


async def test_nobody_gets_further_at_any_level_of_a_change_than_the_rules_let_them(
    cp: Running, mesh: Sidecars, places: list[Place]
) -> None:
    """On, to another authority, PERMISSIVE, off: with rules by names, and by tags; callers who speak, and who wait."""
    steps = Stepwise(cp, places)
    await steps.hold()
    await mesh.converged()
    own: list[LocalAuthority] = []
    held_at = []
    for declared, backend in ((MTLS, "ca-1"), (OTHER_CA, "ca-2"), (PERMISSIVE, ""), (OFF, "")):
        async for position in steps.positions(declared):
            if backend and len(own) < int(backend[-1]):
                own.append(own_authority(cp, backend))
            issues = [authority.name for authority in own if authority.fingerprint == position.authority]
            held_at.append((position.level.name, len(position.roots), *issues))
            if position.level is not Level.PLAIN:
                for place in places:
                    await check(place, position, own)
    assert held_at == [
        ("ACCEPTING", 1, "ca-1"), ("ENCRYPTING", 1, "ca-1"), ("STRICT", 1, "ca-1"),
        ("STRICT", 2, "ca-1"), ("STRICT", 2, "ca-2"), ("STRICT", 2, "ca-2"), ("STRICT", 1, "ca-2"),
        ("ENCRYPTING", 1, "ca-2"), ("ACCEPTING", 1, "ca-2"), ("PLAIN", 0),
    ]  # fmt: skip
