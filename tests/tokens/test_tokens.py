"""Dataplane tokens: what holds, and what does not."""

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from kuma.base.errors import AccessDenied, NoSigningKey, Unauthenticated
from kuma.resources import codec, kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.tokens import dataplane_tokens
from tests.fakes import cas

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="session")
def secrets() -> Any:
    found = [asyncio.run(dataplane_tokens.new_signing_key("default", serial)) for serial in (1, 2)]
    return {secret.name: secret for secret in found}


def issue(secrets: Any, **claims: Any) -> str:
    return dataplane_tokens.issue_token("default", secrets, **{"valid_for": HOUR, "now": NOW, **claims})


def spec(*tags: str) -> DataplaneSpec:
    inbound = ", ".join(f"{{port: {80 + i}, servicePort: {8080 + i}, tags: {{{t}}}}}" for i, t in enumerate(tags))
    text = f"{{type: Dataplane, name: web-01, networking: {{address: 10.0.0.1, inbound: [{inbound}]}}}}"
    found: DataplaneSpec = codec.parse(next(codec.documents(text))).spec
    return found


def test_a_token_says_what_it_was_issued_for(secrets: Any) -> None:
    token = issue(secrets, name="web-01", tags={"kuma.io/service": ["web", "api"]})
    found = dataplane_tokens.verify_token(token, "default", secrets, NOW)
    assert (found.mesh, found.name) == ("default", "web-01")
    assert found.tags == {"kuma.io/service": frozenset({"web", "api"})}
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "2", "typ": "JWT"}


def test_the_newest_key_signs_and_all_verify(secrets: Any) -> None:
    older = {name: secret for name, secret in secrets.items() if name.endswith("-1")}
    assert dataplane_tokens.verify_token(issue(older), "default", secrets, NOW)
    with pytest.raises(Unauthenticated, match='a key that mesh "default" does not have'):
        dataplane_tokens.verify_token(issue(secrets), "default", older, NOW)


def test_a_mesh_without_a_key_issues_nothing() -> None:
    with pytest.raises(NoSigningKey, match="dataplane-token-signing-key-default-1"):
        issue({})


@pytest.mark.parametrize(("later", "reason"), [(HOUR, "has expired"), (-timedelta(minutes=7), "not valid yet")])
def test_a_token_holds_for_its_time_only(secrets: Any, later: timedelta, reason: str) -> None:
    with pytest.raises(Unauthenticated, match=reason):
        dataplane_tokens.verify_token(issue(secrets), "default", secrets, NOW + later)


def test_a_token_that_begins_in_a_moment_holds_and_one_that_has_ended_a_moment_ago_does_not(secrets: Any) -> None:
    """Clocks differ. Its end is what limits the use of a stolen one."""
    begins, ends = NOW - timedelta(minutes=5), NOW + HOUR
    assert dataplane_tokens.verify_token(issue(secrets), "default", secrets, begins - timedelta(seconds=59))
    with pytest.raises(Unauthenticated, match="not valid yet: in 61 seconds"):
        dataplane_tokens.verify_token(issue(secrets), "default", secrets, begins - timedelta(seconds=61))
    with pytest.raises(Unauthenticated, match="has expired"):
        dataplane_tokens.verify_token(issue(secrets), "default", secrets, ends)


def test_a_token_of_another_mesh_does_not_hold(secrets: Any) -> None:
    with pytest.raises(Unauthenticated):
        dataplane_tokens.verify_token(issue(secrets), "other", secrets, NOW)
    renamed = {name.replace("-default-", "-other-"): secret for name, secret in secrets.items()}
    with pytest.raises(Unauthenticated, match="proxy mesh from requestor: other is different than in token: default"):
        dataplane_tokens.verify_token(issue(secrets), "other", renamed, NOW)


def _forged(header: dict[str, str], claims: dict[str, Any], sign: Any) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    body = b".".join(parts)
    return (body + b"." + base64.urlsafe_b64encode(sign(body)).rstrip(b"=")).decode()


CLAIMS = {"Name": "", "Mesh": "default", "Tags": {}, "exp": 4102444800, "nbf": 0}


def test_other_algorithms_are_not_accepted(secrets: Any) -> None:
    key = dataplane_tokens.keyring("default", secrets)._key(1)
    assert key is not None
    public = key.public_key()
    from cryptography.hazmat.primitives import serialization

    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for header, sign in (
        ({"alg": "none", "kid": "1"}, lambda body: b""),
        ({"alg": "HS256", "kid": "1"}, lambda body: hmac.new(pem, body, hashlib.sha256).digest()),
    ):
        with pytest.raises(Unauthenticated):
            dataplane_tokens.verify_token(_forged(header, CLAIMS, sign), "default", secrets, NOW)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "....", "\x00"])
def test_nonsense_is_no_token(secrets: Any, token: str) -> None:
    with pytest.raises(Unauthenticated):
        dataplane_tokens.verify_token(token, "default", secrets, NOW)


@pytest.mark.parametrize("kid", [None, "", "0", "01", "../1", "99999999999", "3"])
def test_a_key_is_looked_up_by_its_number_only(secrets: Any, kid: Any) -> None:
    key = dataplane_tokens.keyring("default", secrets)._key(1)
    assert key is not None
    token = jwt.encode(CLAIMS, key, algorithm="RS256", headers={"kid": kid} if kid is not None else None)
    with pytest.raises(Unauthenticated):
        dataplane_tokens.verify_token(token, "default", secrets, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"Groups": None},
        {"Groups": []},
        {"Zone": "east"},
        {"Scope": []},
        {"exp": None},
        {"exp": "soon"},
        {"Tags": []},
        {"Tags": {"a": "b"}},
        {"Name": 7},
        {"Name": "\ud800"},
        {"Type": "ingress"},
        {"Type": "Dataplane"},
        {"Type": 7},
        {"nbf": "x"},
    ],
)
def test_malformed_claims_do_not_hold(secrets: Any, change: dict[str, Any]) -> None:
    key = dataplane_tokens.keyring("default", secrets)._key(1)
    assert key is not None
    claims = {name: value for name, value in {**CLAIMS, **change}.items() if value is not None or name == "Groups"}
    token = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "1"})
    with pytest.raises(Unauthenticated):
        dataplane_tokens.verify_token(token, "default", secrets, NOW)


def test_a_token_without_a_jti_is_not_taken_for_one_that_is_called_none(secrets: Any) -> None:
    key = dataplane_tokens.keyring("default", secrets)._key(1)
    assert key is not None
    token = jwt.encode(CLAIMS, key, algorithm="RS256", headers={"kid": "1"})
    name = "dataplane-token-revocations-default"
    revoked = Resource(kinds.SECRET.key(name, "default"), SecretSpec(data=b"None"))
    assert dataplane_tokens.verify_token(token, "default", {**secrets, name: revoked}, NOW)


def identity(name: str = "", mesh: str = "default", **tags: set[str]) -> dataplane_tokens.DataplaneClaims:
    return dataplane_tokens.DataplaneClaims(
        mesh, name, {tag.replace("_", "/", 1): frozenset(values) for tag, values in tags.items()}
    )


WEB = ("kuma.io/service: web", "kuma.io/service: api, version: v1")


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (identity(name="web-02"), "proxy name from requestor: web-01 is different than in token: web-02"),
        (identity(mesh="other"), "proxy mesh from requestor: default is different than in token: other"),
        (identity(team={"a"}), 'dataplane has no tag "team" required by the token'),
        (
            dataplane_tokens.DataplaneClaims("default", "", {"kuma.io/service": frozenset({"web"})}),
            'tag "kuma.io/service" with value "api" which is not allowed with this token. '
            'Allowed values in token are ["web"]',
        ),
    ],
)
def test_who_may_not_run_for_a_dataplane(who: dataplane_tokens.DataplaneClaims, reason: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        dataplane_tokens.authorize(who, "default", "web-01", spec(*WEB))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "who",
    [
        identity(),
        identity(name="web-01"),
        dataplane_tokens.DataplaneClaims("default", "", {"kuma.io/service": frozenset({"web", "api", "more"})}),
    ],
)
def test_who_may(who: dataplane_tokens.DataplaneClaims) -> None:
    dataplane_tokens.authorize(who, "default", "web-01", spec(*WEB))


def test_a_signing_key_that_cannot_be_read_verifies_nothing(secrets: Any, tmp_path: Path) -> None:
    """A Secret may hold anything; whoever looks at tokens when Secrets change must not fall over it."""
    token = issue({name: secret for name, secret in secrets.items() if name.endswith("-1")})
    odd = cas.root(tmp_path, "odd", algorithm=cas.on_curve("secp112r1")).key
    name = "dataplane-token-signing-key-default-1"
    changed = {**secrets, name: secrets[name].with_spec(SecretSpec(data=odd.encode()))}
    with pytest.raises(Unauthenticated, match="does not hold an RSA key in PEM"):
        dataplane_tokens.verify_token(token, "default", changed, NOW)
