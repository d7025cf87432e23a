"""What an edited Dataplane weakens is told, and refused where the mesh is guarded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kuma.base.errors import WeakeningRefused
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.tokens import dataplane_tokens
from tests.admission.test_told_edits import fields, secret
from tests.fakes.control_plane import MTLS, Running, resource, running

TOLD = {
    "networking.inbound.tags", "networking.inbound.name", "networking.inbound.port", "networking.inbound.servicePort",
    "networking.inbound.serviceAddress", "networking.inbound.address", "networking.inbound.protocol",
    "networking.address", "networking.gateway.tags", "metrics.conf.skipMTLS", "metrics.conf.tls.mode",
}  # fmt: skip
"""Compared by who reaches each workload, what the proxy is denied, and who reads its metrics."""
KEPT = {
    "networking.advertisedAddress": "where callers are sent: whoever answers there has to prove the service",
    "networking.admin.port": "no inbound leads there, whatever the port is",
    "networking.inbound.state": "whether it is called",
    "networking.inbound.health.ready": "the same",
    "networking.gateway.type": "how a gateway is run",
    "probes": "it has no effect, and is told as such",
}
KEPT_BELOW = {
    "networking.outbound.": "what is called, by the tags of the callee's certificate",
    "networking.inbound.serviceProbe.": "whether it is called",
    "networking.transparentProxying.": "what reaches no inbound is plaintext, and refused once the mesh is STRICT",
    "metrics.": "who reads metrics by mutual TLS is for permissions to say",
}

PERMISSIONS = (
    "{type: MeshTrafficPermission, mesh: default, name: db, spec: {targetRef: {kind: MeshService, name: db},"
    " from: [{targetRef: {kind: MeshService, name: web}, default: {action: Allow}}]}}",
    "{type: MeshTrafficPermission, mesh: default, name: open, spec: {targetRef: {kind: MeshService, name: open},"
    " from: [{targetRef: {kind: Mesh}, default: {action: Allow}}]}}",
    "{type: MeshTrafficPermission, mesh: default, name: no-dev, spec: {targetRef: {kind: Mesh},"
    " from: [{targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}]}}",
    "{type: MeshTrafficPermission, mesh: default, name: not-bad, spec: {targetRef: {kind: MeshService, name: shop},"
    " from: [{targetRef: {kind: Mesh}, default: {action: Allow}},"
    " {targetRef: {kind: MeshService, name: bad}, default: {action: Deny}}]}}",
)


def dataplane(*inbounds: dict[str, Any], **more: Any) -> str:
    places = [{"port": 5000 + number, "servicePort": 8080, **each} for number, each in enumerate(inbounds)]
    networking = {"address": "127.0.0.9", "inbound": places}
    return json.dumps({"type": "Dataplane", "mesh": "default", "name": "dp", "networking": networking, **more})


def of(service: str, **tags: str) -> dict[str, Any]:
    return {"tags": {"kuma.io/service": service, "kuma.io/protocol": "tcp", **tags}}


def test_every_field_stands_here() -> None:
    known = {*TOLD, *KEPT}
    assert [f for f in fields(DataplaneSpec) if f not in known and not f.startswith(tuple(KEPT_BELOW))] == []


async def told(cp: Running, before: str, after: str) -> list[str]:
    await cp.parts.manager.put(resource(before), allow_weakening=True)
    outcome = await cp.parts.manager.put(resource(after), allow_weakening=True)
    assert (await cp.parts.manager.put(resource(after))).weakens == (), "what is there already is no news"
    return [text.removeprefix("this weakens the mesh: ") for text in outcome.weakens]


DB, OPEN = of("db"), of("open")
EVERYBODY = "all callers with an identity of the mesh reach the workload at port 8080 by it, and did not before"
SCRAPED = {"metrics": {"name": "p", "type": "prometheus", "conf": {"skipMTLS": True}}}


DENIED_NO_MORE = (
    'networking: what the MeshTrafficPermission "{}" has denied is denied no more by inbounds with '
    "kuma.io/service={}, and is admitted there"
)
Inbounds = tuple[dict[str, Any], ...]
EDITS: dict[str, tuple[Inbounds, Inbounds, list[str]]] = {
    "out of what restricts its callers": ((DB,), (OPEN,), [f"networking.inbound[0]: {EVERYBODY}"]),
    "a further way to its workload": ((DB,), (DB, OPEN), [f"networking.inbound[1]: {EVERYBODY}"]),
    "another workload": ((DB,), (DB, {**OPEN, "servicePort": 9}), []),
    "the way back": ((OPEN,), (DB,), []),
    "away from under a denial by tag": ((of("db", env="dev"),), (DB,), [DENIED_NO_MORE.format("no-dev", "open")]),
    "away from under a denial by service": ((of("bad"),), (of("good"),), [DENIED_NO_MORE.format("not-bad", "shop")]),
    "to under another denial": ((of("bad"),), (of("good", env="dev"),), []),
    "a tag that nothing looks at": ((of("db", version="1"),), (of("db", version="2"),), []),
}


async def test_what_an_edit_of_a_dataplane_weakens_is_told(tmp_path: Path) -> None:
    metrics = "metrics: {enabledBackend: p, backends: [{name: p, type: prometheus}]}"
    async with running(tmp_path) as cp:
        await cp.apply(MTLS.replace("name: default,", f"name: default, {metrics},"), *PERMISSIONS)
        for what, (before, after, expected) in EDITS.items():
            assert await told(cp, dataplane(*before), dataplane(*after)) == expected, what
        (public,) = await told(cp, dataplane(DB), dataplane(DB, **SCRAPED))
        assert public.startswith("metrics.conf: without mutual TLS whoever reaches a proxy reads its metrics")


async def test_a_guarded_mesh_refuses_it_unless_that_is_asked_for(tmp_path: Path) -> None:
    guarded = MTLS.replace("name: default", "name: default, labels: {kuma.io/weakening: refused}")
    async with running(tmp_path) as cp:
        await cp.apply(*PERMISSIONS, guarded, dataplane(DB))
        with pytest.raises(WeakeningRefused, match="reach the workload at port 8080"):
            await cp.parts.manager.put(resource(dataplane(OPEN)))
        proxy = await cp.proxy(resource(dataplane(OPEN)))  # which is what its token says, whatever the guard
        await proxy.until(lambda: proxy.certificate)
        await proxy.disconnect()
        await cp.parts.manager.put(resource(dataplane(DB)))
        assert len((await cp.parts.manager.put(resource(dataplane(OPEN)), allow_weakening=True)).weakens) == 1


async def test_which_tokens_end_with_a_signing_key_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        stored = await cp.parts.manager.get(resource(secret("dataplane-token-signing-key-default-1", "x")).key)
        deletion = await cp.parts.manager.delete(stored.key)
        assert deletion.weakens == ()
        (told,) = deletion.warnings
        assert told.startswith('the key is gone: tokens that it has signed (by their header, "kid": "1") hold no more')
        assert (await cp.parts.manager.put(stored)).warnings == ()
        other = await dataplane_tokens.new_signing_key("default")
        (told,) = (await cp.parts.manager.put(other)).warnings
        assert told.startswith("the key is another one now: tokens that it has signed")
