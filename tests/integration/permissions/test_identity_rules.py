"""Permissions by SPIFFE ID, for Dataplanes by name, and by the zone: with real Envoys, over HTTP and TCP."""

from tests.fakes.control_plane import MTLS, Running
from tests.integration.sidecars import Sidecar, Sidecars, until


def permission(name: str, spec: str) -> str:
    return f"{{type: MeshTrafficPermission, mesh: default, name: {name}, spec: {{{spec}}}}}"


def identity(how: str, path: str) -> str:
    return f'{{spiffeID: {{type: {how}, value: "spiffe://{path}"}}}}'


async def talks(caller: Sidecar) -> bool:
    return await caller.talk("store") == b"store:hello"


async def is_cut_off(caller: Sidecar) -> bool:
    return await caller.talk("store") == b""


async def test_callers_are_told_apart_by_their_spiffe_ids_and_zone(cp: Running, mesh: Sidecars) -> None:
    web_only = f"rules: [{{default: {{allow: [{identity('Prefix', 'default/web')}]}}}}]"
    all_of_the_zone = "from: [{targetRef: {kind: MeshSubset, tags: {kuma.io/zone: default}}, default: {action: Allow}}]"
    await cp.apply(
        MTLS,
        permission("callers-of-backend", f"targetRef: {{kind: Dataplane, name: backend-01}}, {web_only}"),
        permission("callers-of-store", f"targetRef: {{kind: Dataplane, name: store-01}}, {all_of_the_zone}"),
    )
    await mesh.start("backend")
    await mesh.start("store", protocol="tcp")
    web = await mesh.start("web", calls=("backend", "store"))
    other = await mesh.start("web-2", calls=("backend", "store"))
    await until("web reaches backend", lambda: web.reaches("backend"))
    assert await other.is_refused("backend"), "a prefix ends at the boundary of a segment"
    await until("web reaches store", lambda: talks(web))
    await until("web-2 reaches store", lambda: talks(other))
    refusal = f"rules: [{{default: {{deny: [{identity('Exact', 'default/web')}]}}}}]"
    await cp.apply(permission("not-web", refusal))
    await until("web is refused over HTTP", lambda: web.is_refused("backend"))

    await until("web is refused over TCP", lambda: is_cut_off(web))
    assert await talks(other)
