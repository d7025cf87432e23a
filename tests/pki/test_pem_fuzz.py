"""Certificates of every make, whole and damaged, through the rules of Meshes and Secrets: taken or refused, no more."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from kuma.base.errors import InvalidResource
from kuma.resources import codec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from tests.authorities.test_provided import manager, mesh, secret  # noqa: F401
from tests.fakes import cas
from tests.fakes.cas import Ca, on_curve, with_extensions
from tests.fakes.examples import examples

ALGORITHMS = (
    ("rsa:2048",), ("rsa:1024",), ("rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"), ("ed25519",), ("ed448",),
    *map(on_curve, ("P-256", "P-521", "secp112r1", "prime239v1", "secp256k1", "brainpoolP320t1", "SM2", "sect163k1")),
)  # fmt: skip
CA, SIGN = "basicConstraints=CA:TRUE", "keyUsage=keyCertSign"
EXTENSIONS = (
    (CA, SIGN),
    (CA, SIGN, "2.5.29.17=DER:30:04:A3:02:30:00"),  # x400Address
    (CA, SIGN, "2.5.29.17=DER:30:06:A5:04:A1:02:0C:00"),  # ediPartyName
    (CA, SIGN, "nameConstraints=permitted;URI:.example.com"),
    (CA, SIGN, "nameConstraints=permitted;URI:default"),
    (CA, SIGN, "2.5.29.30=DER:05:00"),  # name constraints that are none
    (CA, SIGN, "2.5.29.15=DER:03:02:01:06", "2.5.29.15=DER:03:02:01:06"),  # the same one twice
    (CA, SIGN, "1.2.3.4=critical,DER:05:00"),
    (CA, SIGN, "certificatePolicies=1.2.3.4", "policyConstraints=requireExplicitPolicy:0"),
    (CA, SIGN, "extendedKeyUsage=codeSigning"),
    ("basicConstraints=CA:FALSE",),
    (),
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Ca]:
    """CAs of every make; what openssl itself refuses to make is left out."""
    directory = tmp_path_factory.mktemp("cas")
    wanted = [(a, EXTENSIONS[0]) for a in ALGORITHMS] + [(on_curve("P-256"), e) for e in EXTENSIONS]
    found = [_made(directory, f"c{i}", *each) for i, each in enumerate(wanted)]
    found += [cas.intermediate(directory, "lower", "c0"), cas.intermediate(directory, "sha1", "c0", digest="sha1")]
    return found


def _made(directory: Path, name: str, algorithm: tuple[str, ...], extensions: tuple[str, ...]) -> Ca:
    return cas.root(directory, name, with_extensions(*extensions), algorithm)


class Damage(NamedTuple):
    """What happens to a PEM; `at` is where, as a part of the whole."""

    how: str
    at: float
    flip: int
    noise: str

    def done_to(self, pem: str) -> str:
        if self.how == "cut":
            return pem[: int(self.at * len(pem))]
        if self.how == "noise":
            return f"{self.noise}{pem}{self.noise}"
        if self.how == "flipped":  # a byte within the certificate, not of the text around it
            block = re.search(r"(-----BEGIN [A-Z ]+-----)([^-]*)(-----END.*)", pem, re.DOTALL)
            assert block is not None
            body = bytearray(base64.b64decode(block[2]))
            body[int(self.at * (len(body) - 1))] ^= self.flip
            return f"{block[1]}\n{base64.encodebytes(bytes(body)).decode()}{block[3]}"
        return pem * 2 if self.how == "twice" else pem


DAMAGE = st.builds(
    Damage, st.sampled_from(["whole", "cut", "flipped", "noise", "twice"]), st.floats(0, 1), st.integers(1, 255),
    st.text(max_size=20),
)  # fmt: skip
MAKES = range(len(ALGORITHMS) + len(EXTENSIONS) + 2)
CHAIN = st.lists(st.tuples(st.sampled_from(MAKES), DAMAGE), min_size=1, max_size=3)


async def put(manager: ResourceManager, resource: Resource[Any]) -> None:  # noqa: F811
    """Have it taken or refused; anything but a refusal that names a field is a failure."""
    try:
        await manager.put(resource)
    except InvalidResource as error:
        assert all(violation.field and violation.reason for violation in error.violations)
        assert "PRIVATE" not in str(error)


@examples(60, expected=(HealthCheck.function_scoped_fixture,))
@given(chain=CHAIN, key_damage=DAMAGE, names=st.permutations(["cert", "key"]))
async def test_any_chain_and_key_is_taken_or_refused(
    manager: ResourceManager,  # noqa: F811
    made: list[Ca],
    chain: list[tuple[int, Damage]],
    key_damage: Damage,
    names: list[str],
) -> None:
    cert = "".join(damage.done_to(made[index].cert) for index, damage in chain)
    key = key_damage.done_to(made[chain[0][0]].key)
    bare = codec.parse({"type": "Mesh", "name": "default"})
    await manager.put(bare)
    if cert and key:  # what says nothing at all does not get as far as the rules
        await put(manager, mesh({"cert": {"inline": encoded(cert)}, "key": {"inline": encoded(key)}}))
    await manager.put(bare)
    await manager.put(as_secret("cert", made[0].cert))
    await manager.put(as_secret("key", made[0].key))
    await manager.put(mesh())
    for name in names:
        await put(manager, as_secret(name, {"cert": cert, "key": key}[name]))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def as_secret(name: str, text: str) -> Resource[Any]:
    found = secret(name, "")
    return found.with_spec(SecretSpec(data=text.encode()))
