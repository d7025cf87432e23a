"""No input gives a traceback or a 500: texts, documents, bodies, PEM, tokens."""

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from kuma.base.errors import InvalidResource, Unauthenticated
from kuma.base.values import durations
from kuma.pki import pem
from kuma.pki.authority import AuthorityUnusable
from kuma.resources import codec, kinds
from kuma.tokens import dataplane_tokens
from tests.api.test_api import DATAPLANE, MESH, Api, api, manager  # noqa: F401 - fixtures
from tests.fakes.examples import examples

WORDS = st.sampled_from(
    ["type", "name", "mesh", "mtls", "backends", "enabledBackend", "conf", "caCert", "RSAbits", "expiration", "spec",
     "networking", "inbound", "tags", "kuma.io/service", "apiVersion", "kind", "metadata", "targetRef", "from", "data",
     "Mesh", "Dataplane", "Secret", "TrafficPermission", "MeshTrafficPermission", "builtin", "provided", "default"]
)  # fmt: skip
LEAVES = WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TEXTS = st.text(st.characters(codec=None), max_size=5)
"""Such with halves of surrogate pairs, too."""
VALUES = st.recursive(
    LEAVES | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | TEXTS, inner, max_size=4),
)
DOCUMENTS = st.dictionaries(WORDS, VALUES, max_size=6)
CERTIFICATE = (Path(__file__).parents[2] / "authorities" / "reference-chain.pem").read_bytes()


@examples(500)
@given(st.text(max_size=300))
def test_any_text_is_yaml_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidResource):
        for document in codec.documents(text):
            codec.parse(document)


@examples(1000)
@given(st.sampled_from([kind.name for kind in kinds.ALL]), DOCUMENTS)
def test_any_document_is_a_resource_or_is_refused(kind: str, document: dict[str, Any]) -> None:
    for found in (document, {**document, "type": kind, "name": "x", "mesh": "default"}):
        try:
            codec.to_universal(codec.parse(found))
        except InvalidResource as error:
            assert error.violations


@examples(500)
@given(st.binary(max_size=200), st.integers(0, len(CERTIFICATE)), st.integers(0, 50))
def test_damaged_certificates_and_keys_are_refused(noise: bytes, at: int, length: int) -> None:
    for text in (noise, CERTIFICATE[:at] + noise + CERTIFICATE[at + length :]):
        for parse in (pem.read_chain, pem.read_key):
            try:
                parse(text)
            except AuthorityUnusable as error:
                assert "certificate" in str(error) or "key" in str(error)


UNITS: dict[str, int | Fraction] = {
    "y": 31_536_000,
    "w": 604_800,
    "d": 86_400,
    "h": 3600,
    "m": 60,
    "s": 1,
    "ms": Fraction(1, 1000),
}
ALMOST = st.text("0123456789.ywdhms -+eµ", max_size=8)
"""Texts that are durations now and then."""
NUMBER = st.integers(0, 10**12).map(str) | st.decimals(0, 10**6, places=9).map(str)
WRITTEN = st.lists(st.tuples(NUMBER, st.sampled_from([*UNITS, "D", ""])).map("".join), max_size=3).map("".join)


def length(text: str, most_parts: int, whole: bool, units: str) -> Fraction | None:
    """How many seconds a text stands for, by the rules; None if it is no duration."""
    total, parts = Fraction(0), 0
    while text:
        number = re.match("[0-9]+" if whole else "[0-9]+([.][0-9]+)?", text)
        unit = re.match("ms|[a-z]", text[number.end() :]) if number else None
        if number is None or unit is None or unit[0] not in units.split():
            return None
        total += Fraction(number[0]) * UNITS[unit[0]]
        text, parts = text[number.end() + unit.end() :], parts + 1
    return total if 1 <= parts <= most_parts else None


@examples(1000)
@given(st.text(max_size=20) | ALMOST | WRITTEN)
def test_any_text_is_the_duration_that_it_says_or_is_refused(text: str) -> None:
    for parse, expected in (
        (durations.parse_duration, length(text, 1, True, "y w d h m s ms")),
        (durations.parse_go_duration, length(text, 99, False, "h m s ms")),
        (durations.parse_timeout, length(text, 1, False, "s")),
    ):
        try:
            found = parse(text)
        except ValueError:
            shortest, longest = Fraction(1, 10**6), durations.LONGEST.total_seconds()
            assert expected is None or not shortest <= expected <= longest or re.search("[0-9]{10}", text)
        else:
            assert found > timedelta(0)
            assert expected is not None
            assert abs(Fraction(found / timedelta(microseconds=1)) / 10**6 - expected) < Fraction(1, 10**5)


@given(st.text(max_size=100))
def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        dataplane_tokens.verify_token(text, "default", {}, datetime.now(UTC))


@examples(150, expected=(HealthCheck.function_scoped_fixture,))
@given(st.sampled_from([kind for kind in kinds.ALL if not kind.read_only]), DOCUMENTS | VALUES)
async def test_no_body_gives_a_500(api: Api, kind: kinds.Kind, document: Any) -> None:  # noqa: F811
    path = f"/meshes/default/{kind.path}/x" if kind.in_mesh else f"/{kind.path}/x"
    full = {"type": kind.name, "mesh": "default", "name": "x"}
    for body in (document, {**document, **full} if isinstance(document, dict) else full):
        content = json.dumps(body).encode()
        answer = await api("PUT", path, content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 201, 400), (body, answer.text)
    assert (await api("GET", path.rpartition("/")[0])).status_code == 200


@examples(90, expected=(HealthCheck.function_scoped_fixture,))
@given(st.dictionaries(TEXTS | st.sampled_from(["kuma.io/x", "a/b/c", "A" * 64, "x-"]), TEXTS, min_size=1, max_size=3))
async def test_no_label_spoils_a_list(api: Api, labels: dict[str, str]) -> None:  # noqa: F811
    for body in (MESH, DATAPLANE):
        assert (await api.put({**body, "labels": labels})).status_code in (200, 201, 400)
    for path in ("/meshes", "/dataplanes"):
        assert (await api("GET", path)).status_code == 200


@examples(150, expected=(HealthCheck.function_scoped_fixture,))
@given(st.sampled_from(["/tokens/user", "/tokens/dataplane"]), VALUES, VALUES)
async def test_no_request_for_a_token_gives_a_500(api: Api, path: str, name: Any, more: Any) -> None:  # noqa: F811
    field = "tags" if path.endswith("dataplane") else "groups"
    mesh = {"mesh": "default"} if field == "tags" else {}
    body = {"name": name, "validFor": "1h", field: more, **mesh}
    answer = await api("POST", path, content=json.dumps(body).encode())
    assert answer.status_code in (200, 400, 404), answer.text
