"""Resources in which one field is what nobody expects there: stored, or refused by that field and nothing changed."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from kuma.api.http.request_limits import RequestLimits
from kuma.base.values.rate_limit import Rate
from kuma.resources import kinds
from tests.api.test_api import JSON, Api, application
from tests.fakes.control_plane import Running
from tests.fakes.examples import examples

ANYBODY = {"match": {"kuma.io/service": "*"}}
TARGET = {"kind": "MeshSubset", "tags": {"kuma.io/service": "web"}}
FILE = {"type": "File", "file": {"path": "/dev/stdout", "format": {"type": "Plain", "plain": "%START_TIME%\n"}}}
WHOLE: Mapping[str, Mapping[str, Any]] = {
    "Mesh": {
        "mtls": {
            "enabledBackend": "ca-1",
            "skipValidation": False,
            "backends": [
                {
                    "name": "ca-1",
                    "type": "builtin",
                    "mode": "PERMISSIVE",
                    "dpCert": {"rotation": {"expiration": "1d"}, "requestTimeout": "10s"},
                    "conf": {"caCert": {"RSAbits": 2048, "expiration": "10y"}},
                    "rootChain": {"requestTimeout": "10s"},
                }
            ],
        },
        "networking": {"outbound": {"passthrough": True}},
        "routing": {"localityAwareLoadBalancing": True, "zoneEgress": False},
        "constraints": {"dataplaneProxy": {"requirements": [{"tags": {"kuma.io/zone": "*"}}], "restrictions": []}},
        "logging": {"defaultBackend": "f", "backends": [{"name": "f", "type": "file", "conf": {"path": "/tmp/f"}}]},
        "metrics": {
            "enabledBackend": "p",
            "backends": [{"name": "p", "type": "prometheus", "conf": {"port": 5670, "path": "/metrics", "tags": {}}}],
        },
    },
    "Dataplane": {
        "networking": {
            "address": "10.0.0.1",
            "advertisedAddress": "10.0.0.2",
            "admin": {"port": 9902},
            "inbound": [
                {
                    "port": 80,
                    "name": "main",
                    "servicePort": 8080,
                    "serviceAddress": "127.0.0.1",
                    "address": "10.0.0.1",
                    "state": "Ready",
                    "health": {"ready": True},
                    "tags": {"kuma.io/service": "web", "kuma.io/protocol": "http", "version": "v1"},
                    "serviceProbe": {"interval": "1s", "timeout": "1s", "healthyThreshold": 1, "tcp": {}},
                }
            ],
            "outbound": [{"port": 20_000, "address": "127.0.0.1", "tags": {"kuma.io/service": "backend"}}],
            "transparentProxying": {"redirectPortInbound": 15006, "redirectPortOutbound": 15001},
        },
        "metrics": {"type": "prometheus", "conf": {"port": 1234, "path": "/m", "skipMTLS": True}},
        "probes": {"port": 9000, "endpoints": [{"inboundPort": 80, "inboundPath": "/a", "path": "/b"}]},
    },
    "TrafficPermission": {"sources": [ANYBODY], "destinations": [ANYBODY, {"match": {"kuma.io/service": "web"}}]},
    "TrafficLog": {"sources": [ANYBODY], "destinations": [ANYBODY], "conf": {"backend": "f"}},
    "MeshTrafficPermission": {
        "spec": {
            "targetRef": {"kind": "MeshService", "name": "web"},
            "from": [
                {"targetRef": TARGET, "default": {"action": "Allow"}},
                {"targetRef": {"kind": "Mesh"}, "default": {"action": "Deny"}},
            ],
        }
    },
    "MeshAccessLog": {
        "spec": {
            "targetRef": TARGET,
            "from": [{"targetRef": {"kind": "Mesh"}, "default": {"backends": [FILE]}}],
            "to": [{"targetRef": {"kind": "MeshService", "name": "web"}, "default": {"backends": [FILE]}}],
        }
    },
    "MeshTimeout": {
        "spec": {"targetRef": TARGET, "to": [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "1h"}}]}
    },
    "Timeout": {"sources": [ANYBODY], "destinations": [ANYBODY], "conf": {"connectTimeout": "1s"}},
    "Secret": {"data": "eA=="},
    "GlobalSecret": {"data": "eA=="},
}
"""Of most kinds a resource with most of what one may say."""

Path = tuple[str | int, ...]
TWICE = "\ue000"
"""Ends a name in what is made here that is the one before it when it is sent."""
DEEP: Any = {}
for _ in range(100):
    DEEP = {"spec": [DEEP]}
ODD = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1.5, 2**31, 2**63, 10**400, -(10**400), 1e308]),
    st.sampled_from([float("nan"), float("inf"), "", " ", "*", "\x00", "\ud800", "\u202e\u200b", "wеb", "１", "-1"]),  # noqa: RUF001
    st.sampled_from(["default", "10.0.0.1", "999.1.1.1", "::ffff:127.0.0.1", "1s", "P1D", "x" * 3000, "é" * 300]),
    st.sampled_from([[], {}, [[]], [None], {"": ""}, {"kind": "Mesh"}, DEEP, [{}] * 70, {"a" * 2000: 1}]),
    st.text(st.characters(codec=None), max_size=10),
    st.integers(),
    st.floats(),
)


def whole(kind: str) -> dict[str, Any]:
    mesh = {"mesh": "default"} if kinds.by_name(kind).in_mesh else {}
    return {"type": kind, **mesh, "name": "x", "labels": {"team": "a"}, **copy.deepcopy(WHOLE[kind])}


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """All places in a document but the document itself, maps and lists included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*path, name)
        yield from paths(inner, (*path, name))


PLACES = [(kind, path) for kind in WHOLE for path in paths(whole(kind))]


def changed(kind: str, path: Path, how: str, odd: Any) -> str:
    """The resource as it is sent: with what is odd instead of what is there, beside it, or said for a second time."""
    document = whole(kind)
    *parents, last = path
    within: Any = document
    for part in parents:
        within = within[part]
    if how == "instead":
        within[last] = odd
    elif how == "left out":
        del within[last]
    elif isinstance(within, list):
        within.append(odd)
    else:
        within[f"{last}{TWICE}" if how == "twice" else f"{last}x"] = odd
    return json.dumps(document).replace(json.dumps(TWICE)[1:-1], "")


def url(kind: str) -> str:
    found = kinds.by_name(kind)
    return f"/meshes/default/{found.path}/x" if found.in_mesh else f"/{found.path}/x"


@pytest.fixture
async def api(cp: Running) -> Api:
    return application(cp.parts.manager, limits=RequestLimits(Rate(1e6, 10**6)))


async def test_every_whole_resource_is_taken(api: Api) -> None:
    for kind in WHOLE:
        assert (await api.put(whole(kind))).status_code == 201, kind


@examples(80, expected=(HealthCheck.function_scoped_fixture,))
@given(st.sampled_from(PLACES), st.sampled_from(["instead", "instead", "beside", "twice", "left out"]), ODD)
async def test_what_is_odd_is_refused_by_its_field_or_taken_and_shown(
    api: Api, place: tuple[str, Path], how: str, odd: Any
) -> None:
    kind, path = place
    sent = changed(kind, path, how, odd)
    before = await api("GET", url(kind))
    answer = await api("PUT", url(kind), content=sent, headers=JSON)
    after = await api("GET", url(kind))
    assert after.status_code in (200, 404)
    if answer.status_code in (200, 201):
        again = await api("PUT", url(kind), content=after.content, headers=JSON)
        assert again.status_code == 200, (sent, after.text, again.text)
        assert (await api("GET", url(kind))).json()["type"] == kind
        return
    assert (answer.status_code, answer.json()["status"]) == (400, 400), (sent, answer.text)
    assert after.content == before.content, "nothing is changed by what is refused"
    refusal = answer.json()
    complaints = refusal.get("invalid_parameters", [])
    assert complaints or "is not valid JSON" in refusal["detail"], (sent, answer.text)
    assert all(complaint["field"] and complaint["reason"] for complaint in complaints), (sent, answer.text)
