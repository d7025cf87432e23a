"""What has changed while an authority was signing is looked at before what it has signed is given to anybody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from kuma.authorities.builtin import Builtin
from kuma.authorities.registry import STANDARD, Drivers
from kuma.pki.authority import Authority, SignedLeaf, SignRequest
from kuma.resources.models.mesh import Backend
from kuma.resources.models.secret import Secrets
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

WEB = dataplane("web-01", "web", tags=", env: prod")
BY_TAG = (
    "{type: TrafficPermission, mesh: default, name: prod, sources: [{match: {kuma.io/service: '*', env: prod}}], "
    "destinations: [{match: {kuma.io/service: '*'}}]}"
)


class Signing:
    """Signing for one mesh, which goes on when it is told to: of each leaf the names, and whether it may be signed."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self._allowed = asyncio.Semaphore(0)

    async def wait(self, request: SignRequest) -> None:
        if request.uris[0].startswith("spiffe://default/"):
            self.asked.append(request.uris)
            await self._allowed.acquire()

    def allow(self) -> None:
        """Lets one leaf be signed."""
        self._allowed.release()

    async def begun(self, times: int) -> None:
        """Return once so many have been asked for."""
        async with asyncio.timeout(PATIENCE):
            while len(self.asked) < times:
                await asyncio.sleep(0.01)


class Slow:
    """An authority that takes long to sign."""

    def __init__(self, inner: Authority, signing: Signing) -> None:
        self._inner, self._signing = inner, signing
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.roots_pem, self.not_before, self.not_after = inner.roots_pem, inner.not_before, inner.not_after

    async def sign(self, request: SignRequest) -> SignedLeaf:
        await self._signing.wait(request)
        return await self._inner.sign(request)


class SlowDriver(Builtin):
    """Opens them."""

    def __init__(self, signing: Signing) -> None:
        self._signing = signing

    def open(self, mesh: str, backend: Backend, secrets: Secrets) -> Authority:
        return Slow(super().open(mesh, backend, secrets), self._signing)


def slow(signing: Signing) -> Drivers:
    return Drivers({**STANDARD.by_type, "builtin": SlowDriver(signing)})


def names(chain: bytes) -> list[str]:
    """The URIs that a leaf shows."""
    shown = x509.load_pem_x509_certificate(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return shown.value.get_values_for_type(x509.UniformResourceIdentifier)


async def asked_for_web(cp: Running, signing: Signing) -> FakeProxy:
    """The proxy of web, whose first leaf is being signed."""
    await cp.apply(MTLS)
    await cp.apply_resource(WEB)
    web = await cp.proxy(WEB, bring=False)
    await signing.begun(1)
    return web


async def test_a_leaf_of_names_that_its_dataplane_has_lost_meanwhile_is_given_to_nobody(tmp_path: Path) -> None:
    signing = Signing()
    async with running(tmp_path, drivers=slow(signing)) as cp:
        web = await asked_for_web(cp, signing)
        await cp.apply_resource(dataplane("web-01", "another"))
        signing.allow()
        await signing.begun(2)
        await cp.looked_around()
        assert web.certificate == b"", "one of its former service"
        signing.allow()
        await web.until(lambda: web.certificate)
        assert names(web.certificate) == ["spiffe://default/another"]


async def test_a_leaf_that_shows_less_than_is_wanted_by_now_is_better_than_none(tmp_path: Path) -> None:
    """With an authority that is slower than the changes come nobody would ever have one."""
    signing = Signing()
    async with running(tmp_path, drivers=slow(signing)) as cp:
        web = await asked_for_web(cp, signing)
        await cp.apply(BY_TAG)
        signing.allow()
        await web.until(lambda: web.certificate)
        assert names(web.certificate) == ["spiffe://default/web"]
        signing.allow()
        await web.until(lambda: names(web.certificate) == ["spiffe://default/web", "kuma://env/prod"])
