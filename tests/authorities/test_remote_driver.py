"""A type of authority that is none of ours, and whose certificate and key the control plane does not hold.

Its driver is all that there is of it: it goes through the rules of Meshes, the trust bundle and the issuing of leaves.
"""

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from kuma.authorities import builtin
from kuma.authorities.driver import Content, Driver
from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource, KumaError
from kuma.pki.authority import Authority, LocalAuthority, SignedLeaf, SignRequest
from kuma.resources import kinds
from kuma.resources.models import mesh as meshes
from kuma.resources.models.mesh import Backend, BackendRules, Conf, MeshSpec
from kuma.resources.models.secret import Secrets
from kuma.resources.resource import Resource
from tests.fakes.control_plane import MTLS, Running, dataplane, resource, running


class Service:
    """A CA that is reached over the network, and can be down."""

    def __init__(self, inner: Authority) -> None:
        self._inner = inner
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.roots_pem, self.not_before, self.not_after = inner.roots_pem, inner.not_before, inner.not_after
        self.down = False
        self.signed = 0

    async def sign(self, request: SignRequest) -> SignedLeaf:
        if self.down:
            raise KumaError("the CA does not answer")
        self.signed += 1
        return await self._inner.sign(request)


class Remote(Driver):
    """The one new file."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def content(self, mesh: str, backend: Backend, secrets: Secrets) -> Content:
        return ("https://ca.example",)

    def open(self, mesh: str, backend: Backend, secrets: Secrets) -> Authority:
        return self._service


def mesh(*backends: dict[str, Any], enabled: str) -> Resource[MeshSpec]:
    spec = MeshSpec.model_validate({"mtls": {"enabledBackend": enabled, "backends": backends}})
    return Resource(kinds.MESH.key("default"), spec)


REMOTE, OWN = {"name": "far", "type": "remote"}, {"name": "ca-1", "type": "builtin"}


@pytest.fixture(autouse=True)
def declarable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other line: that users may declare it, and that its `conf` has no rules."""
    monkeypatch.setitem(
        meshes.TYPES, "remote", BackendRules(lambda conf, path: iter(()), lambda backend, path: iter(()))
    )


@pytest.fixture
async def service() -> Service:
    return Service(LocalAuthority("far", await builtin.create_root("default", Conf(), SystemClock())))


def drivers(service: Service) -> Drivers:
    return Drivers({**STANDARD.by_type, "remote": Remote(service)})  # the one line


def is_issued_by(service: Service, leaf: bytes) -> bool:
    root = x509.load_pem_x509_certificate(service.roots_pem)
    try:
        x509.load_pem_x509_certificate(leaf).verify_directly_issued_by(root)
    except InvalidSignature:
        return False
    return True


def trusted(cp: Running) -> bytes:
    return "".join(cp.parts.views.view("default").position.roots).encode()


async def test_a_mesh_is_put_trusts_and_is_issued_from_a_remote_authority(tmp_path: Path, service: Service) -> None:
    async with running(tmp_path, drivers=drivers(service)) as cp:
        await cp.apply_resource(mesh(REMOTE, enabled="far"))
        await cp.parts.views.until(lambda: service.roots_pem in trusted(cp))
        web = await cp.proxy(dataplane("web-01", "web"))
        await web.until(lambda: web.certificate)
        assert is_issued_by(service, web.certificate)
        stored = cp.parts.views.view("default").secrets
        assert not any(".ca-" in name for name in stored), "nothing of it is kept here"

        # Away from it as for any other change of authorities.
        await cp.apply_resource(mesh(REMOTE, OWN, enabled="ca-1"))
        await web.until(lambda: not is_issued_by(service, web.certificate))
        await cp.parts.views.until(lambda: complete(cp))
        assert trusted(cp).count(b"BEGIN") == 2


def complete(cp: Running) -> bool:
    transition = cp.parts.views.view("default").transition
    return transition is not None and transition.spec.complete


async def test_a_remote_authority_that_does_not_sign_is_refused(tmp_path: Path, service: Service) -> None:
    service.down = True
    async with running(tmp_path, drivers=drivers(service)) as cp:
        with pytest.raises(InvalidResource, match="the CA does not answer"):
            await cp.apply_resource(mesh(REMOTE, enabled="far"))
        assert (await cp.parts.manager.get(kinds.MESH.key("default"))).spec.mtls is None


async def test_a_backend_of_a_type_that_is_not_installed_is_refused_and_harms_no_other(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        with pytest.raises(InvalidResource, match='no driver for backends of the type "remote"'):
            await cp.apply_resource(mesh(OWN, REMOTE, enabled="ca-1"))
        await cp.apply_resource(resource(MTLS))
