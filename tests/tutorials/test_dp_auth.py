"""`dp-auth`, retold: tokens by both ways, one that is revoked, a new signing key, and one that is signed elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.tutorials.place import Place, place

ECHO = """
type: Dataplane
mesh: default
name: {name}
networking:
  address: 127.0.0.1
  admin: {{port: ${admin}}}
  inbound:
  - port: ${port}
    servicePort: $WORKLOAD
    tags: {{kuma.io/service: {service}}}"""
RUN = (
    'kuma-dp run --cp-address=$CP --dataplane-token-file={token} --ca-cert-file=.kuma/ca.crt --dataplane="{dataplane}"'
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The control plane is given a public key, whose private half it never sees."""
    with place(tmp_path_factory.mktemp("auth")) as found:
        found.type(
            """umask 077
kumactl generate signing-key --format=pem > key-private.pem
kumactl generate public-key --signing-key-path=key-private.pem > key-public.pem"""
        )
        public = (found.home / "key-public.pem").read_text()
        assert public.startswith("-----BEGIN RSA PUBLIC KEY-----")
        keys = json.dumps([{"kid": "my-key", "mesh": "default", "key": public}])
        variable = "KUMA_DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_VALIDATOR_PUBLIC_KEYS"
        found.terminal("kuma-cp run", {variable: keys}, says="mesh created")
        found.type('kumactl config control-planes add --name=here --address="$API"')
        found.take("WORKLOAD", "ONLINE", "OFFLINE", "OTHER", "ADMIN_1", "ADMIN_2", "ADMIN_3")
        yield found


def command(name: str, service: str, token: str, number: int) -> str:
    port = ("ONLINE", "OFFLINE", "OTHER")[number]
    dataplane = ECHO.format(name=name, service=service, port=port, admin=f"ADMIN_{number + 1}")
    return RUN.format(token=token, dataplane=dataplane)


def test_a_token_by_http_names_what_it_is_for(here: Place) -> None:
    asked = '{"name": "dp-echo-1", "mesh": "default", "tags": {"kuma.io/service": ["a", "b"]}, "validFor": "720h"}'
    token = here.type(
        f"""curl --silent --fail -XPOST -H "Content-Type: application/json" --data '{asked}' $API/tokens/dataplane"""
    )
    assert claims(token)["Tags"] == {"kuma.io/service": ["a", "b"]}


def test_a_proxy_with_a_token_that_was_signed_elsewhere(here: Place) -> None:
    here.type(
        """umask 077
kumactl generate dataplane-token --name dp-echo-1 --mesh default --tag kuma.io/service=backend,backend-admin \
  --valid-for 720h --signing-key-path key-private.pem --kid my-key > offline-token"""
    )
    assert header((here.home / "offline-token").read_text())["kid"] == "my-key"
    here.terminal(command("dp-echo-1", "backend", "offline-token", 1), says="the proxy runs")
    here.shows("kumactl inspect dataplanes", lambda shown: "dp-echo-1" in shown and "Online" in shown)

    refused = here.tried(command("dp-echo-1", "frontend", "offline-token", 2))
    assert refused.returncode == 1, "it is for other services"
    here.type("kumactl generate signing-key --format=pem > other.pem")
    here.type("kumactl generate dataplane-token --name x --signing-key-path other.pem --kid my-key > forged-token")
    forged = here.tried(command("x", "backend", "forged-token", 2))
    assert (forged.returncode, "its signature is not by the key that it names" in forged.stderr) == (1, True), (
        forged.stderr
    )


def test_a_revoked_token_ends_its_proxys_stream(here: Place) -> None:
    token = here.type(
        """umask 077
kumactl generate dataplane-token --name echo-server --mesh default --tag kuma.io/service=a,b --valid-for 720h \
  | tee online-token"""
    )
    here.terminal(command("echo-server", "a", "online-token", 0), says="the proxy runs")
    here.type(
        f"""echo "
type: Secret
mesh: default
name: dataplane-token-revocations-default
data: {{{{ revocations }}}}" | kumactl apply --var revocations=$(echo '{claims(token)["jti"]}' | base64) -f -"""
    )
    here.shows(
        "kumactl inspect dataplanes", lambda shown: "echo-server" not in online(shown) and "dp-echo-1" in online(shown)
    )


def test_another_signing_key(here: Place) -> None:
    """Tokens are signed by the new one from then on; once the old one is deleted, its tokens hold no more."""
    here.type("umask 077; kumactl generate dataplane-token --name old > old-token")
    here.type(
        """echo "
type: Secret
mesh: default
name: dataplane-token-signing-key-default-2
data: {{ key }}" | kumactl apply --var key=$(kumactl generate signing-key) -f -"""
    )
    assert header(here.type("kumactl generate dataplane-token --name x"))["kid"] == "2"
    shown = here.type("kumactl get secrets")
    assert "dataplane-token-signing-key-default-1" in shown
    assert "dataplane-token-signing-key-default-2" in shown
    here.type("kumactl delete secret dataplane-token-signing-key-default-1")
    refused = here.tried(command("old", "a", "old-token", 2))
    assert (refused.returncode, "key" in refused.stderr) == (1, True), refused.stderr


def online(shown: str) -> list[str]:
    """The names of a table's Dataplanes that have a proxy."""
    return [line.split()[1] for line in shown.splitlines() if "Online" in line]


def claims(token: str) -> dict[str, object]:
    return decoded(token.split(".")[1])


def header(token: str) -> dict[str, object]:
    return decoded(token.split(".")[0])


def decoded(part: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
