"""What may be done to the Secrets that a provided authority is made of."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kuma.base.errors import InvalidResource
from kuma.pki import x509
from kuma.resources import codec, kinds
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Delete
from tests.authorities.test_provided import ANY_LENGTH, CA, ODD_EXTENSIONS, SIGN, manager, provide, secret  # noqa: F401
from tests.fakes import cas
from tests.fakes.cas import Ca, on_curve, with_extensions


def ended() -> Ca:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.build_root("ended", key, datetime.now(UTC) - timedelta(days=2), timedelta(days=1))
    return Ca(x509.certificate_pem(made).decode(), x509.key_pem(key).decode())


def weak(directory: Path) -> dict[str, Ca]:
    """Certificates that must not get into the Secret of an authority, each with its own key."""
    return {
        "basic constraint 'CA'": cas.root(directory, "leaf", with_extensions("basicConstraints=CA:FALSE")),
        "keyAgreement": cas.root(directory, "agreed", with_extensions(CA, "keyUsage=keyCertSign,keyAgreement")),
        "ended at": ended(),
        "too weak": cas.root(directory, "weak", ANY_LENGTH, ("rsa:1024",)),
        "not a valid x509 certificate": cas.root(directory, "curve", ANY_LENGTH, on_curve("secp112r1")),
        "not a valid x509": cas.root(directory, "odd", with_extensions(CA, SIGN, ODD_EXTENSIONS["x400Address"])),
        "any PEM data in certificate input": Ca("nonsense", "nonsense"),
    }


async def test_secrets_in_use_are_kept_and_replaced_one_after_the_other(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
) -> None:
    await provide(manager, cas.root(tmp_path, "one"))
    two = cas.root(tmp_path, "two")
    for name in ("cert", "key"):
        with pytest.raises(InvalidResource, match="currently in use"):
            await manager.delete(secret(name, "").key)
        with pytest.raises(InvalidResource, match="would break mTLS backend"):
            await manager.put(secret(name, "nonsense"))
    half = await manager.put(secret("cert", two.cert))
    assert "the backend goes on as it was until the other one is replaced, too" in half.warnings[0]
    assert (await manager.put(secret("key", two.key))).warnings == ()


@pytest.mark.parametrize("before", ["whole", "half", "lost key", "lost certificate"])
async def test_nothing_wrong_gets_in_whatever_was_there_before(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
    before: str,
) -> None:
    one, two = cas.root(tmp_path, "one"), cas.root(tmp_path, "two")
    await provide(manager, one)
    if before == "half":
        await manager.put(secret("cert", two.cert))
    if before.startswith("lost"):
        lost = "key" if before == "lost key" else "cert"
        await manager.store.transact([Delete(secret(lost, "").key)])
    for reason, ca in weak(tmp_path).items():
        with pytest.raises(InvalidResource) as caught:
            await manager.put(secret("cert", ca.cert))
        assert reason in str(caught.value)
    for key in ("nonsense", one.cert, cas.root(tmp_path, "ed448", ANY_LENGTH, ("ed448",)).key):
        with pytest.raises(InvalidResource, match="not a valid TLS key pair: tls: "):
            await manager.put(secret("key", key))
    await manager.put(secret("cert", two.cert))
    await manager.put(secret("key", two.key))


async def test_a_lost_pair_is_put_back_one_after_the_other(manager: ResourceManager, tmp_path: Path) -> None:  # noqa: F811
    ca = cas.root(tmp_path, "one")
    await provide(manager, ca)
    await manager.store.transact([Delete(secret(name, "").key) for name in ("cert", "key")])
    (warning,) = (await manager.put(secret("key", ca.key))).warnings
    assert 'waits for the other Secret that it is made of, "cert"' in warning
    assert (await manager.put(secret("cert", ca.cert))).warnings == ()


NARROW = "nameConstraints=permitted;URI:.example.com"
NEVER_VERIFY = {
    "permitted subtree violation": NARROW,
    "unhandled critical extension": "1.2.3.4=critical,DER:05:00",
    "unsuitable certificate purpose": "extendedKeyUsage=codeSigning",
}


@pytest.mark.parametrize(
    ("reason", "above"),
    [("permitted subtree violation", False), *((reason, True) for reason in NEVER_VERIFY)],
)
async def test_what_would_never_verify_is_refused_before_its_key_comes(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
    reason: str,
    above: bool,
) -> None:
    """Of a root that is itself trusted, Envoy looks at the constraints of names only."""
    await provide(manager, cas.root(tmp_path, "one"))
    extensions = with_extensions(CA, SIGN, "subjectKeyIdentifier=hash", NEVER_VERIFY[reason])
    if above:
        root = cas.root(tmp_path, "root", ANY_LENGTH)
        bad = Ca(cas.intermediate(tmp_path, "two", "root", extensions).cert + root.cert, "")
    else:
        bad = cas.root(tmp_path, "two", extensions)
    with pytest.raises(InvalidResource, match=rf"would break mTLS backend .*do not verify: {reason}"):
        await manager.put(secret("cert", bad.cert))


@pytest.mark.parametrize(
    "extensions",
    [
        ("nameConstraints=permitted;URI:default",),
        ("subjectKeyIdentifier=none",),
        ("subjectKeyIdentifier=hash", "authorityKeyIdentifier=keyid:always,issuer:always"),
        ("subjectKeyIdentifier=01:02:03",),
    ],
)
async def test_what_would_verify_is_let_in_before_its_key_comes(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
    extensions: tuple[str, ...],
) -> None:
    await provide(manager, cas.root(tmp_path, "one"))
    root = cas.root(tmp_path, "root", with_extensions(CA, SIGN, *extensions))
    lower = cas.intermediate(tmp_path, "lower", "root", with_extensions(CA, SIGN, *extensions))
    for new in root, Ca(lower.cert + root.cert, lower.key):
        await manager.put(secret("cert", new.cert))
        assert (await manager.put(secret("key", new.key))).warnings == ()


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
async def test_a_root_of_the_original_is_judged_before_its_key_comes(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
) -> None:
    """They have the serial number 0."""
    await provide(manager, cas.root(tmp_path, "one"))
    narrow = cas.root(tmp_path, "narrow", with_extensions(CA, SIGN, NARROW), serial="0")
    with pytest.raises(InvalidResource, match="do not verify: permitted subtree violation"):
        await manager.put(secret("cert", narrow.cert))
    fit = cas.root(tmp_path, "fit", ANY_LENGTH, serial="0")
    await manager.put(secret("cert", fit.cert))
    assert (await manager.put(secret("key", fit.key))).warnings == ()


async def test_a_new_ca_answers_the_warnings_that_the_mesh_would(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
) -> None:
    await provide(manager, cas.root(tmp_path, "one"))
    usage = with_extensions(CA, "keyUsage=keyCertSign,digitalSignature")
    two = cas.root(tmp_path, "two", usage, days="1")
    await manager.put(secret("cert", two.cert))
    by_secret = (await manager.put(secret("key", two.key))).warnings
    by_mesh = await provide(manager, two)
    assert by_secret == by_mesh
    assert [text.partition(":")[0] for text in by_secret] == [
        "mtls.backends[0].conf.cert[0]", "mtls.backends[0].conf.cert",
    ]  # fmt: skip


def sharing(*backends: dict[str, Any]) -> Resource[Any]:
    return codec.parse({"type": "Mesh", "name": "default", "mtls": {"backends": backends}})


async def test_a_secret_of_two_backends_is_judged_for_both(manager: ResourceManager, tmp_path: Path) -> None:  # noqa: F811
    """The second backend's key is inline: a new certificate may fit the first one only."""
    one, two = cas.root(tmp_path, "one"), cas.root(tmp_path, "two")
    await manager.put(secret("cert", one.cert))
    await manager.put(secret("key", one.key))
    cert = {"secret": "cert"}
    first = {"name": "first", "type": "provided", "conf": {"cert": cert, "key": {"secret": "key"}}}
    second = {"name": "second", "type": "provided", "conf": {"cert": cert, "key": {"inlineString": one.key}}}
    await manager.put(sharing(first, second))
    with pytest.raises(InvalidResource) as caught:
        await manager.put(secret("cert", two.cert))
    (violation,) = caught.value.violations
    assert 'would break mTLS backend "second"' in violation.reason
    with pytest.raises(InvalidResource) as caught:
        await manager.delete(kinds.SECRET.key("cert", "default"))
    assert len(caught.value.violations) == 2
    for violation, name in zip(caught.value.violations, ("first", "second"), strict=True):
        assert f'in mTLS backend "{name}"' in violation.reason
