"""Leaves and roots, judged by implementations that are not ours."""

import asyncio
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from spiffe import X509Svid

from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.pki import issuer
from kuma.pki.authority import Authority, LocalAuthority, SignedLeaf, SignRequest
from kuma.pki.issuer import Identity, IssueFailed
from kuma.pki.x509 import CaPair
from kuma.resources.models.mesh import CaCert, Conf
from tests.fakes.clock import ManualClock

URIS = ("spiffe://default/web", "kuma://version/v1")
MONTH = timedelta(days=30)
CONFS = {"ecdsa": Conf(), "rsa": Conf(ca_cert=CaCert(rsa_bits=2048))}


@pytest.fixture(scope="session", params=list(CONFS.values()), ids=list(CONFS))
def pair(request: pytest.FixtureRequest) -> CaPair:
    return asyncio.run(builtin.create_root("default", request.param, SystemClock()))


@pytest.fixture
def authority(pair: CaPair) -> Authority:
    return LocalAuthority("ca-1", pair)


def leaf_of(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.chain_pem)


async def test_openssl_verifies_a_leaf(authority: Authority, tmp_path: Path) -> None:
    identity = await issuer.issue(authority, URIS, MONTH, SystemClock().now())
    (tmp_path / "leaf.pem").write_bytes(identity.chain_pem)
    (tmp_path / "root.pem").write_bytes(authority.roots_pem)
    for purpose in ("sslserver", "sslclient"):
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "root.pem", "leaf.pem"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


async def test_a_spiffe_library_accepts_a_leaf(authority: Authority) -> None:
    identity = await issuer.issue(authority, URIS[:1], MONTH, SystemClock().now())
    svid = X509Svid.parse(identity.chain_pem, identity.key_pem)
    assert str(svid.spiffe_id) == "spiffe://default/web"


async def test_the_profile_of_a_leaf(authority: Authority) -> None:
    leaf = leaf_of(await issuer.issue(authority, URIS, MONTH, SystemClock().now()))
    found: Any = {extension.oid: extension for extension in leaf.extensions}
    names = found[x509.SubjectAlternativeName.oid]
    usage = found[x509.KeyUsage.oid].value
    assert leaf.subject == x509.Name([])
    assert names.critical
    assert tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier)) == URIS
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, False, False)
    assert {oid.dotted_string for oid in found[x509.ExtendedKeyUsage.oid].value} == {
        "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2",
    }  # fmt: skip
    assert found[x509.BasicConstraints.oid].value == x509.BasicConstraints(ca=False, path_length=None)
    assert x509.SubjectKeyIdentifier.oid in found
    assert x509.AuthorityKeyIdentifier.oid in found
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert leaf.serial_number > 0


async def test_the_profile_of_a_root(pair: CaPair) -> None:
    root = pair.certificate
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert root.subject.rfc4514_string() == "CN=default,O=Kuma"
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://default"]
    # Names are critical only where there is no subject (RFC 5280 §4.2.1.6).
    critical = {extension.oid for extension in root.extensions if extension.critical}
    assert critical == {x509.BasicConstraints.oid, x509.KeyUsage.oid}
    another = await builtin.create_root("default", Conf(), SystemClock())
    assert root.serial_number != another.certificate.serial_number
    assert min(root.serial_number.bit_length(), another.certificate.serial_number.bit_length()) > 64


async def test_the_configured_size_of_rsa_is_used() -> None:
    conf = Conf(ca_cert=CaCert(rsa_bits=3072, expiration="2d"))
    pair = await builtin.create_root("default", conf, SystemClock())
    assert isinstance(pair.key, rsa.RSAPrivateKey)
    assert pair.key.key_size == 3072
    assert abs(pair.certificate.not_valid_after_utc - datetime.now(UTC) - timedelta(days=2)) < timedelta(minutes=1)


async def test_every_leaf_has_its_own_key_and_serial(authority: Authority) -> None:
    now = SystemClock().now()
    first, second = [await issuer.issue(authority, URIS, MONTH, now) for _ in range(2)]
    assert first.serial != second.serial
    assert first.key_pem != second.key_pem


async def test_a_leaf_begins_an_hour_earlier_and_lives_as_long_as_asked(authority: Authority) -> None:
    clock = ManualClock(datetime.now(UTC))
    identity = await issuer.issue(authority, URIS, timedelta(hours=1), clock.now())
    leaf = leaf_of(identity)
    now = clock.now().replace(microsecond=0)
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (
        now - timedelta(hours=1),
        now + timedelta(hours=1),
    )
    assert identity.not_after == leaf.not_valid_after_utc


async def test_a_leaf_holds_since_the_one_was_issued_that_it_replaces() -> None:
    """If it is our clock that has jumped ahead, it holds by everybody else's."""
    now = datetime.now(UTC).replace(microsecond=0)
    root = await builtin.create_root("default", Conf(), ManualClock(now - timedelta(days=100)))
    old = LocalAuthority("ca-1", root)
    ahead = await issuer.issue(old, URIS, MONTH, now + timedelta(days=40), since=now)
    assert (ahead.not_before, ahead.not_after) == (now - timedelta(hours=1), now + timedelta(days=40) + MONTH)
    back = await issuer.issue(old, URIS, MONTH, now, since=ahead.issued)
    assert (back.not_before, back.not_after) == (now - timedelta(hours=1), now + MONTH)


async def test_no_leaf_begins_before_its_authority_or_is_issued_before_it(authority: Authority) -> None:
    begin = authority.not_before
    young = await issuer.issue(authority, URIS, MONTH, begin + timedelta(minutes=1))
    assert young.not_before == begin
    with pytest.raises(IssueFailed, match=r'the certificate of backend "ca-1" begins at .*: wait for that, or set'):
        await issuer.issue(authority, URIS, MONTH, begin - timedelta(seconds=1))


@pytest.mark.parametrize(("expiration", "earlier"), [("10s", 1), ("1m", 6), ("1d", 3600), ("10y", 3600)])
async def test_a_root_begins_earlier_but_not_by_much_of_its_life(expiration: str, earlier: int) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    pair = await builtin.create_root("default", Conf(ca_cert=CaCert(expiration=expiration)), ManualClock(now))
    assert now - pair.certificate.not_valid_before_utc == timedelta(seconds=earlier)


async def test_no_leaf_outlives_its_authority(authority: Authority) -> None:
    identity = await issuer.issue(authority, URIS, timedelta(days=20 * 365), SystemClock().now())
    assert identity.not_after == authority.not_after


async def test_an_expired_authority_issues_nothing(authority: Authority) -> None:
    clock = ManualClock(authority.not_after + timedelta(seconds=1))
    with pytest.raises(IssueFailed, match='the certificate of backend "ca-1" ended at'):
        await issuer.issue(authority, URIS, MONTH, clock.now())


class Willful:
    """An authority that signs something else than it was asked to, with what it believes to be its chain."""

    def __init__(self, inner: Authority, chain: tuple[x509.Certificate, ...] = (), **otherwise: Any) -> None:
        self._inner, self._chain, self._otherwise = inner, chain, otherwise
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.roots_pem, self.not_before, self.not_after = inner.roots_pem, inner.not_before, inner.not_after

    async def sign(self, request: SignRequest) -> SignedLeaf:
        signed = await self._inner.sign(replace(request, **self._otherwise))
        return SignedLeaf(signed.leaf, (*signed.intermediates, *self._chain))


@pytest.mark.parametrize(
    ("what", "otherwise"),
    [
        ("names", {"uris": ("spiffe://default/admin",)}),
        ("names", {"uris": (*URIS, "spiffe://default/admin")}),
        ("key", {"public_key": ec.generate_private_key(ec.SECP256R1()).public_key()}),
        ("lifetime", {"not_after": datetime.now(UTC).replace(microsecond=0) + 2 * MONTH}),
    ],
)
async def test_a_leaf_that_says_something_else_is_not_released(
    authority: Authority, what: str, otherwise: Mapping[str, Any]
) -> None:
    with pytest.raises(IssueFailed, match=f"signed another {what} than asked for"):
        await issuer.issue(Willful(authority, **otherwise), URIS, MONTH, SystemClock().now())


async def test_a_leaf_with_a_chain_that_has_not_signed_it_is_not_released(pair: CaPair) -> None:
    """One of the same name, too: it is the key that counts."""
    authority, other = LocalAuthority("ca-1", pair), await builtin.create_root("default", Conf(), SystemClock())
    for chain in ((other.certificate,), (pair.certificate, other.certificate)):
        with pytest.raises(IssueFailed, match="signed another signature than asked for"):
            await issuer.issue(Willful(authority, chain), URIS, MONTH, SystemClock().now())
    assert (await issuer.issue(Willful(authority, (pair.certificate,)), URIS, MONTH, SystemClock().now())).chain_pem


class Breaking(Willful):
    """An authority that fails in a way that nobody has thought of."""

    async def sign(self, request: SignRequest) -> SignedLeaf:
        raise ZeroDivisionError("by surprise")


async def test_any_failure_of_an_authority_is_a_certificate_that_is_not_issued(authority: Authority) -> None:
    with pytest.raises(IssueFailed, match="did not sign: by surprise"):
        await issuer.issue(Breaking(authority), URIS, MONTH, SystemClock().now())


async def test_a_key_is_never_shown(pair: CaPair) -> None:
    identity = await issuer.issue(LocalAuthority("ca-1", pair), URIS, MONTH, SystemClock().now())
    assert "PRIVATE KEY" not in repr(identity)
    assert "key=" not in repr(pair)


@given(st.lists(st.from_regex(r"[A-Za-z0-9._-]{1,40}", fullmatch=True), min_size=1, max_size=20, unique=True))
async def test_any_services_make_a_leaf_that_parses(services: list[str]) -> None:
    pair = await builtin.create_root("default", Conf(), SystemClock())
    uris = tuple(f"spiffe://default/{service}" for service in services)
    leaf = leaf_of(await issuer.issue(LocalAuthority("ca-1", pair), uris, MONTH, SystemClock().now()))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) == uris
