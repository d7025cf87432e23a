"""What happens to a mesh's Secrets when the Mesh is applied, and what may be done to them afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from kuma.admission.mesh_rules import MeshRules
from kuma.admission.secret_rules import SecretRules
from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource
from kuma.pki.authority import AuthorityUnusable
from kuma.resources import codec, kinds
from kuma.resources.models.mesh import Conf
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Delete
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes import cas

CERT, KEY = (
    kinds.SECRET.key("default.ca-builtin-cert-ca-1", "default"),
    kinds.SECRET.key("default.ca-builtin-key-ca-1", "default"),
)
TOKEN_KEY = "dataplane-token-signing-key-default-1"


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    yield ResourceManager(store, {"Mesh": MeshRules(SystemClock()), "Secret": SecretRules(SystemClock())})
    await store.close()


def mesh(*backends: str, enabled: str = "", conf: str = "{}", spelling: str = "conf") -> Resource[Any]:
    listed = [f"{{name: {name}, type: builtin, {spelling}: {conf}}}" for name in backends]
    text = f"{{type: Mesh, name: default, mtls: {{enabledBackend: '{enabled}', backends: [{', '.join(listed)}]}}}}"
    return codec.parse(next(codec.documents(text)))


async def names(manager: ResourceManager) -> set[str]:
    return {secret.name for secret in (await manager.list("Secret", "default")).items}


async def test_every_listed_backend_gets_a_pair_of_its_own(manager: ResourceManager) -> None:
    await manager.put(mesh("ca-1", "ca-2", enabled="ca-1"))
    assert await names(manager) == {
        TOKEN_KEY,
        *builtin.secret_names("default", "ca-1"),
        *builtin.secret_names("default", "ca-2"),
    }
    first, second = [
        (await manager.get(kinds.SECRET.key(builtin.secret_names("default", backend)[0], "default"))).spec.data
        for backend in ("ca-1", "ca-2")
    ]
    assert x509.load_pem_x509_certificate(first).public_key() != x509.load_pem_x509_certificate(second).public_key()


async def test_a_root_that_exists_is_kept(manager: ResourceManager) -> None:
    await manager.put(mesh("ca-1", enabled="ca-1"))
    before = await manager.get(CERT)
    await manager.put(mesh("ca-1", "ca-2", enabled="ca-2"))
    assert await manager.get(CERT) == before


async def test_a_changed_conf_says_that_the_root_stays(manager: ResourceManager) -> None:
    await manager.put(mesh("ca-1"))
    before = await manager.get(CERT)
    outcome = await manager.put(mesh("ca-1", conf="{caCert: {expiration: 1d}}"))
    assert any("list a backend with another name" in warning for warning in outcome.warnings)
    assert await manager.get(CERT) == before


async def test_mtls_without_a_permission_warns_and_names_the_remedy(manager: ResourceManager) -> None:
    outcome = await manager.put(mesh("ca-1", enabled="ca-1"))
    (warning,) = outcome.warnings
    assert "every call between its services is denied" in warning
    assert "Apply a TrafficPermission" in warning
    anybody = "[{match: {kuma.io/service: '*'}}]"
    permission = f"{{type: TrafficPermission, mesh: default, name: a, sources: {anybody}, destinations: {anybody}}}"
    await manager.put(codec.parse(next(codec.documents(permission))))
    assert (await manager.put(mesh("ca-1", enabled="ca-1"))).warnings == ()


async def test_half_a_pair_is_never_completed_with_another_half(manager: ResourceManager) -> None:
    await manager.put(mesh("ca-1"))
    await manager.store.transact([Delete(KEY)])
    with pytest.raises(InvalidResource, match=r"mtls.backends\[0]: Secret .*key-ca-1. is missing"):
        await manager.put(mesh("ca-1", enabled="ca-1"))
    assert not (await manager.get(kinds.MESH.key("default"))).spec.enabled_backend


@pytest.mark.parametrize("key", [CERT, KEY])
async def test_a_secret_in_use_is_not_deleted(manager: ResourceManager, key: Any) -> None:
    await manager.put(mesh("ca-1"))
    with pytest.raises(InvalidResource, match='is currently in use in Mesh "default" in mTLS backend "ca-1"'):
        await manager.delete(key)
    await manager.put(mesh("ca-2"))
    assert await manager.find(key) is None  # there never was mutual TLS, so it goes with its backend


@pytest.mark.parametrize("key", [CERT, KEY])
async def test_a_secret_in_use_is_not_damaged(manager: ResourceManager, key: Any) -> None:
    await manager.put(mesh("ca-1"))
    other = await builtin.create_root("default", Conf(), SystemClock())
    for data in (b"nonsense", *(s.spec.data for s in builtin.to_secrets("default", "x", other))):
        with pytest.raises(InvalidResource, match='data: would break mTLS backend "ca-1"'):
            await manager.put(Resource(key, SecretSpec(data=data)))


async def test_a_lost_secret_can_be_put_back(manager: ResourceManager) -> None:
    await manager.put(mesh("ca-1"))
    saved = await manager.get(KEY)
    await manager.store.transact([Delete(KEY)])
    await manager.put(Resource(KEY, saved.spec))
    assert builtin.open_authority("default", "ca-1", {r.name: r for r in (await manager.list("Secret")).items})


async def test_deleting_a_mesh_takes_its_secrets_along(manager: ResourceManager) -> None:
    await manager.put(mesh("ca-1"))
    await manager.delete(kinds.MESH.key("default"))
    assert await names(manager) == set()


async def test_what_is_wrong_with_an_authority_is_said_without_its_key(manager: ResourceManager) -> None:
    await manager.put(mesh("ca-1"))
    secrets = {r.name: r for r in (await manager.list("Secret")).items}
    broken = {
        "is missing": {k: v for k, v in secrets.items() if k != KEY.name},
        "On Kubernetes they are made as soon": {k: v for k, v in secrets.items() if k not in (CERT.name, KEY.name)},
        "does not hold a PEM certificate": {**secrets, CERT.name: secrets[KEY.name]},
        "does not hold a PEM private key": {**secrets, KEY.name: secrets[CERT.name]},
        "does not match the certificate": {**secrets, KEY.name: secrets[TOKEN_KEY]},
    }
    for reason, found in broken.items():
        with pytest.raises(AuthorityUnusable, match=reason) as caught:
            builtin.open_authority("default", "ca-1", found)
        assert "BEGIN" not in str(caught.value)


async def test_a_roots_certificate_is_replaced_by_a_ca_only(manager: ResourceManager, tmp_path: Path) -> None:
    """Made with the root's own key, so that the two still belong together."""
    await manager.put(mesh("ca-1"))
    (tmp_path / "root.key").write_bytes((await manager.get(KEY)).spec.data)

    def made(*extensions: str) -> Resource[Any]:
        (tmp_path / "root.cnf").write_text(cas.with_extensions(*extensions))
        cas.openssl(
            tmp_path, "req", "-config", "root.cnf", "-new", "-x509", "-key", "root.key", "-subj", "/CN=root",
            "-extensions", "ext", "-out", "root.crt",
        )  # fmt: skip
        return Resource(CERT, SecretSpec(data=(tmp_path / "root.crt").read_bytes()))

    for extensions in (("basicConstraints=CA:FALSE",), ("basicConstraints=CA:TRUE", "keyUsage=cRLSign")):
        with pytest.raises(InvalidResource, match='would break mTLS backend "ca-1"'):
            await manager.put(made(*extensions))
    await manager.put(made("basicConstraints=CA:TRUE", "keyUsage=keyCertSign"))


async def test_a_root_that_ends_before_its_leaves_is_warned_of(manager: ResourceManager) -> None:
    def warned(warnings: tuple[str, ...]) -> bool:
        return any("caCert.expiration: the root ends before the certificates" in warning for warning in warnings)

    assert warned((await manager.put(mesh("ca-1", conf="{caCert: {expiration: 10d}}"))).warnings)
    assert not warned((await manager.put(mesh("ca-2", conf="{caCert: {expiration: 31d}}"))).warnings)


async def test_warnings_name_the_field_as_it_is_spelled(manager: ResourceManager) -> None:
    for expiration in ("10d", "11d"):
        outcome = await manager.put(mesh("ca-1", conf=f"{{caCert: {{expiration: {expiration}}}}}", spelling="config"))
    fields = [warning.partition(": ")[0] for warning in outcome.warnings]
    assert {"mtls.backends[0].config", "mtls.backends[0].config.caCert.expiration"} <= set(fields)
    assert not any(field.startswith("mtls.backends[0].conf.") or field == "mtls.backends[0].conf" for field in fields)
