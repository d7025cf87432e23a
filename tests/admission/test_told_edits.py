"""Every field by which a mesh protects itself, with an edit that loosens it and is told, or the reason why none can.

A field that is added to one of these kinds fails the first test until it stands here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import httpx
import pytest
from pydantic import BaseModel

from kuma.base.errors import WeakeningRefused
from kuma.base.tls.trust import NOBODY
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.mesh_traffic_permission import MeshTrafficPermissionSpec
from kuma.resources.models.traffic_permission import TrafficPermissionSpec
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, resource, running
from tests.fakes.patience import PATIENCE

Edit = tuple[dict[str, Any], dict[str, Any]]
"""A Mesh before and after, both without what every Mesh here has."""

MADE = {"name": "made", "type": "builtin"}
OTHER = {"name": "other", "type": "builtin"}
TEAM = {"tags": {"team": "a"}}


def mtls(*backends: dict[str, Any], enabled: str = "made") -> dict[str, Any]:
    return {"mtls": {"enabledBackend": enabled, "backends": list(backends)}}


def rules(**some: Any) -> dict[str, Any]:
    return {**mtls(MADE), "constraints": {"dataplaneProxy": some}}


def lives(time: str) -> dict[str, Any]:
    return mtls({**MADE, "dpCert": {"rotation": {"expiration": time}}})


def outbound(**some: bool) -> dict[str, Any]:
    return {**mtls(MADE), "networking": {"outbound": some}}


def scraped(enabled: str = "p", **conf: Any) -> dict[str, Any]:
    """Metrics, for everybody or by mutual TLS."""
    return {
        **mtls(MADE),
        "metrics": {"enabledBackend": enabled, "backends": [{"name": "p", "type": "prometheus", "conf": conf}]},
    }


def given(ca: cas.Ca, *, key: str = "conf") -> dict[str, Any]:
    """A further backend, whose authority its owner has."""
    conf = {"cert": {"inlineString": ca.cert}, "key": {"inlineString": ca.key}}
    return {"name": "given", "type": "provided", key: conf}


MESH_LOOSENED: dict[str, Edit] = {
    "mtls": (mtls(MADE), {}),
    "mtls.enabledBackend": (mtls(MADE), mtls(MADE, enabled="")),
    "mtls.backends.mode": (mtls(MADE), mtls({**MADE, "mode": "PERMISSIVE"})),
    "mtls.backends.dpCert.rotation.expiration": (lives("1h"), lives("2h")),
    "constraints.dataplaneProxy.restrictions.tags": (rules(restrictions=[TEAM]), rules()),
    "constraints.dataplaneProxy.requirements.tags": (rules(requirements=[TEAM]), rules()),
    "networking.outbound.passthrough": (outbound(passthrough=False), outbound()),
    "metrics.backends.conf.skipMTLS": (scraped(skipMTLS=False), scraped(skipMTLS=True)),
    "metrics.backends.conf.tls.mode": (scraped(), scraped(tls={"mode": "disabled"})),
    "metrics.enabledBackend": (scraped("", skipMTLS=True), scraped(skipMTLS=True)),
    "labels": ({**mtls(MADE), "labels": {"kuma.io/weakening": "refused"}}, mtls(MADE)),
}
"""By field, with what it guards looser afterwards. Further authorities are below: they need a certificate."""
FURTHER_TRUST = {
    "mtls.backends.name", "mtls.backends.type",
    *(
        f"mtls.backends.{conf}.{part}.{source}"
        for conf in ("conf", "config") for part in ("cert", "key")
        for source in ("secret", "inline", "inlineString", "file")
    ),
}  # fmt: skip
MESH_KEPT = {
    "mtls.skipValidation": "nobody gets a certificate of a backend whose Secrets are not there",
    "mtls.backends.dpCert.requestTimeout": "time",
    "mtls.backends.rootChain.requestTimeout": "time",
    "mtls.backends.conf.caCert.RSAbits": "a root that exists stays as it is, and less than 2048 is refused",
    "mtls.backends.conf.caCert.expiration": "a root that exists stays as it is",
    "mtls.backends.config.caCert.RSAbits": "the same, in the other spelling",
    "mtls.backends.config.caCert.expiration": "the same, in the other spelling",
    **dict.fromkeys(("metrics.backends.name", "metrics.backends.type"), "by which one is enabled"),
    **{
        f"metrics.backends.conf.{part}": "who reads metrics by mutual TLS is for permissions to say"
        for part in ("port", "path", "tags", "envoy.usedOnly", "envoy.filterRegex", "aggregate")
    },
}
WITHOUT_EFFECT = ("routing.", "logging.", "tracing.", "meshServices.", "skipCreatingInitialPolicies")
"""Told as such when they are applied."""
PERMISSIONS = {
    "sources.match", "destinations.match", "from.default.action",
    *(
        f"{where}.{part}"
        for where in ("targetRef", "from.targetRef")
        for part in ("kind", "name", "tags", "labels", "namespace", "sectionName", "proxyTypes")
    ),
    *(
        f"rules.default.{said}.spiffeID.{part}"
        for said in ("allow", "allowWithShadowDeny", "deny") for part in ("type", "value")
    ),
}  # fmt: skip
"""Compared as a whole, by who is admitted: `tests/policy/test_weakening.py` tries them at random."""


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The paths of all fields that hold something themselves."""
    for name, info in model.model_fields.items():
        here = f"{path}{info.alias or name}"
        parts = [found for found in _parts(info.annotation) if isinstance(found, type)]
        models = [found for found in parts if issubclass(found, BaseModel)]
        for found in models:
            yield from fields(found, f"{here}.")
        if not models:
            yield here


def _parts(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType, tuple, list):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def test_every_field_stands_here() -> None:
    known = {*MESH_LOOSENED, *FURTHER_TRUST, *MESH_KEPT}
    assert [f for f in fields(MeshSpec) if f not in known and not f.startswith(WITHOUT_EFFECT)] == []
    found = {*fields(TrafficPermissionSpec), *fields(MeshTrafficPermissionSpec)}
    assert found - PERMISSIONS == set()


async def weakens(cp: Running, name: str, edit: dict[str, Any]) -> tuple[str, ...]:
    mesh = resource(json.dumps({"type": "Mesh", "name": name, **edit}))
    stored = await cp.parts.manager.put(mesh, allow_weakening=True)
    await cp.parts.views.until(lambda: cp.parts.views.holds(stored.resource))
    return stored.weakens


async def test_every_edit_that_loosens_is_told_by_its_field_and_the_way_back_is_not(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        for index, (field, (before, after)) in enumerate(MESH_LOOSENED.items()):
            name = f"mesh-{index}"
            assert await weakens(cp, name, before) == (), field
            (told,) = await weakens(cp, name, after)
            place = "metrics" if field.startswith("metrics.") else field.replace(".backends.", ".backends[0].")
            assert told.startswith(f"this weakens the mesh: {place.removesuffix('.tags')}: "), (field, told)
            assert await weakens(cp, name, before) == (), field


@pytest.mark.parametrize("spelling", ["conf", "config"])
async def test_a_further_authority_is_told_and_so_is_another_content_of_it(tmp_path: Path, spelling: str) -> None:
    one, two = given(cas.root(tmp_path, "one", days="60"), key=spelling), given(cas.root(tmp_path, "two", days="60"))
    async with running(tmp_path) as cp:
        assert await weakens(cp, "default", mtls(MADE)) == ()
        assert await weakens(cp, "default", mtls(MADE, OTHER)) == (), "its key is here, and nowhere else"
        (told,) = await weakens(cp, "default", mtls(MADE, OTHER, one))
        assert told.startswith('this weakens the mesh: mtls.backends[2]: "given" does not issue, and is trusted')
        assert await weakens(cp, "default", mtls(MADE, one)) == ()
        assert len(await weakens(cp, "default", mtls(MADE, two))) == 1
        assert await weakens(cp, "default", mtls(MADE, two, enabled="given")) == (), "that is what is asked for"
        assert await weakens(cp, "default", mtls(MADE, one, enabled="given")) == ()
        assert await weakens(cp, "default", mtls(MADE, one)) == (), "it has been trusted before"


def secret(name: str, text: str) -> str:
    data = base64.b64encode(text.encode()).decode()
    return f"{{type: Secret, mesh: default, name: {name}, data: {data}}}"


async def test_a_further_authority_by_its_secret(tmp_path: Path) -> None:
    one, two = (cas.root(tmp_path, name, days="60") for name in ("one", "two"))
    conf = {"cert": {"secret": "cert"}, "key": {"secret": "key"}}
    async with running(tmp_path) as cp:
        await cp.apply(secret("cert", one.cert), secret("key", one.key))
        backends = (MADE, {"name": "given", "type": "provided", "conf": conf})
        assert len(await weakens(cp, "default", mtls(*backends))) == 0, "without mutual TLS nothing was checked"
        put = cp.parts.manager.put
        assert (await put(resource(secret("key", two.key)))).weakens == ()
        (told,) = (await put(resource(secret("cert", two.cert)))).weakens
        assert "is trusted from now on" in told
        assert (await put(resource(secret("cert", one.cert)))).weakens == (), "the key is of the other one"
        assert len((await put(resource(secret("key", one.key)))).weakens) == 1


async def test_a_token_that_is_revoked_no_more(tmp_path: Path) -> None:
    guarded = MTLS.replace("name: default", "name: default, labels: {kuma.io/weakening: refused}")
    listed = "dataplane-token-revocations-default"
    async with running(tmp_path) as cp:
        put = cp.parts.manager.put
        for text, expected in (("a,b", 0), ("a,b,c", 0), ("b", 1), (",", 1)):
            assert len((await put(resource(secret(listed, text)))).weakens) == expected, text
        await put(resource(secret(listed, "a")))
        await cp.apply(guarded)
        with pytest.raises(WeakeningRefused, match="the token a is revoked no more, and holds until it expires"):
            await cp.parts.manager.delete(resource(secret(listed, "a")).key)
        user = secret("user-token-revocations", "u").replace("Secret, mesh: default", "GlobalSecret")
        await put(resource(user))
        assert len((await cp.parts.manager.delete(resource(user).key)).weakens) == 1


async def test_who_wanted_to_weaken_is_on_record_also_when_that_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, defaults={"refuse_weakening": True}) as cp:
        await cp.apply(MTLS)
        async with httpx.AsyncClient(
            verify=NOBODY, base_url=f"http://127.0.0.1:{await cp.api_port()}", timeout=PATIENCE
        ) as client:
            found = resource(ALLOW_ALL)
            content = {"type": "TrafficPermission", "mesh": "default", "name": found.name, **found.spec.to_wire()}
            path = f"/meshes/default/traffic-permissions/{found.name}"
            assert (await client.put(path, json=content)).status_code == 400
            assert (await client.put(f"{path}?allowWeakening=true", json=content)).status_code == 201
        record = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    told = [line for line in record if line["event"] in ("weakening refused", "weakened")]
    assert [(line["event"], line["name"]) for line in told] == [
        ("weakening refused", "allow-all"), ("weakened", "allow-all"),
    ]  # fmt: skip
    assert "all callers with an identity of the mesh are admitted" in told[0]["would"][0]
