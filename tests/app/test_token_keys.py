"""Public keys in the settings: from file and environment, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kuma.app import token_keys
from kuma.app.configuration import settings_file
from kuma.base.errors import Misconfigured

KEYS = "KUMA_DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_VALIDATOR_PUBLIC_KEYS"
KEY = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()
PRIVATE = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
).decode()
OTHER = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


def test_keys_come_from_the_original_file(tmp_path: Path) -> None:
    (tmp_path / "public.pem").write_text(PUBLIC)
    file = tmp_path / "kuma-cp.yaml"
    keys = [{"kid": "1", "mesh": "default", "keyFile": str(tmp_path / "public.pem")}]
    dp_token = {"enableIssuer": False, "validator": {"useSecrets": False, "publicKeys": keys}}
    users = {"validator": {"publicKeys": [{"kid": "u", "key": PUBLIC}]}}
    file.write_text(json.dumps({
        "dpServer": {"authn": {"dpProxy": {"type": "dpToken", "dpToken": dp_token}}},
        "apiServer": {"authn": {"type": "tokens", "tokens": users}},
    }))  # fmt: skip
    settings = settings_file.load(file, {})
    found = token_keys.of_proxies(settings)
    assert (found.uses_secrets, found.issues, list(found.of("default")), list(found.of("other"))) == (
        False, False, ["1"], [],
    )  # fmt: skip
    assert found.of("default")["1"] == KEY.public_key()
    assert list(token_keys.of_users(settings).keys) == ["u"]


def test_keys_come_from_the_environment() -> None:
    environment = {
        KEYS: json.dumps([{"kid": "1", "mesh": "default", "key": PUBLIC}]),
        "KUMA_DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER": "false",
        "KUMA_DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_VALIDATOR_USE_SECRETS": "false",
    }
    found = token_keys.of_proxies(settings_file.load(None, environment))
    assert (found.uses_secrets, found.issues, list(found.of("default"))) == (False, False, ["1"])


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ({"kid": "1", "mesh": "m", "key": PRIVATE}, "publicKeys[0].key: is a private key; give the public one"),
        ({"kid": "1", "mesh": "m", "key": OTHER}, "publicKeys[0].key: has to be an RSA key"),
        ({"kid": "1", "mesh": "m", "key": "nonsense"}, "publicKeys[0].key: has to be an RSA public key in PEM"),
        ({"kid": "1", "mesh": "m", "keyFile": "/nowhere"}, "publicKeys[0].keyFile: cannot read /nowhere"),
        ({"kid": "1", "mesh": "m"}, "publicKeys[0]: give either key or keyFile"),
        ({"kid": "", "mesh": "m", "key": PUBLIC}, "publicKeys[0].kid: cannot be empty"),
        ({"kid": "1", "key": PUBLIC}, "publicKeys[0].mesh: cannot be empty"),
    ],
)
def test_a_key_that_could_verify_nothing_is_refused(key: dict[str, str], told: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        token_keys.of_proxies(settings_file.load(None, {KEYS: json.dumps([key])}))
    assert told in str(refused.value)


def test_no_authentication_says_what_to_do() -> None:
    with pytest.raises(Misconfigured, match=r'cannot be "none" here.*kumactl generate dataplane-token'):
        settings_file.load(None, {"KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE": "none"})
