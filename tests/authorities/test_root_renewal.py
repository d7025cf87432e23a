"""Builtin roots are renewed in time, and proxies are led over to the new one."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from kuma.authorities import builtin
from kuma.resources import kinds
from tests.fakes import cas
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE

SHORT = MTLS.replace("type: builtin", "type: builtin, conf: {caCert: {expiration: 10d}}")
DAY = 24 * 3600.0


async def root(cp: Running) -> x509.Certificate:
    name, _ = builtin.secret_names("default", "ca-1")
    return x509.load_pem_x509_certificate((await cp.parts.manager.get(kinds.SECRET.key(name, "default"))).spec.data)


async def test_a_root_is_renewed_at_four_fifths_of_its_life_by_a_staged_change(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(SHORT)
        web = await cp.proxy(dataplane("web-01", "web"))
        await web.until(lambda: web.certificate)
        first = await root(cp)
        clock.advance(7.9 * DAY)
        await cp.looked_around()
        assert await root(cp) == first
        clock.advance(0.2 * DAY)
        async with asyncio.timeout(PATIENCE):
            while await root(cp) == first:
                await asyncio.sleep(0.01)
        second = await root(cp)
        assert second.not_valid_after_utc > first.not_valid_after_utc
        await cp.until(lambda: _is_of(web.certificate, second))

        def is_complete() -> bool:
            transition = cp.parts.views.view("default").transition
            return transition is not None and transition.spec.complete

        await cp.until(is_complete)


def _is_of(leaf: bytes, issuer: x509.Certificate) -> bool:
    certificate = x509.load_pem_x509_certificate(leaf)
    identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    expected = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return identifier.key_identifier == expected.key_identifier


async def test_the_end_of_a_provided_authority_is_told_in_time(tmp_path: Path) -> None:
    ca = cas.root(tmp_path, "root", days="100")
    clock = ManualClock(datetime.now(UTC))  # openssl's own clock has begun the CA: ours must not be before it
    conf = {"cert": {"inlineString": ca.cert}, "key": {"inlineString": ca.key}}
    backend = {"name": "own", "type": "provided", "conf": conf}
    mesh = {"type": "Mesh", "name": "default", "mtls": {"enabledBackend": "own", "backends": [backend]}}
    async with running(tmp_path, clock) as cp:
        await cp.apply(json.dumps(mesh))
        await problem(cp, "")
        clock.advance(69 * DAY)
        await cp.looked_around()
        await problem(cp, "")
        clock.advance(2 * DAY)
        await problem(cp, "the CA ends at ")
        clock.advance(30 * DAY)
        await problem(cp, "the CA ended at ")


async def problem(cp: Running, begins: str) -> None:
    """Return once the only authority has this problem, or none."""
    key = kinds.MESH_TRANSITION.key("default", "default")
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await cp.parts.manager.find(key)
            if found is not None and found.spec.backends:
                text = found.spec.backends[0].problem
                if text.startswith(begins) and bool(text) == bool(begins):
                    return
            await asyncio.sleep(0.02)
