"""Examines an authority before it is taken: all rules, whichever resource its certificate and key come with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from kuma.authorities import registry
from kuma.base.errors import InvalidResource, Violation
from kuma.pki import ca_requirements, pem, trial
from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.resources.mesh import Backend
from kuma.resources.secret import Secrets


def path_of(backend: Backend, index: int) -> str:
    """Returns the field of the Mesh that says what an authority is made of."""
    return f"mtls.backends[{index}].{backend.spelling}"


async def examine(mesh: str, backend: Backend, path: str, secrets: Secrets, now: datetime) -> tuple[str, ...]:
    """Returns warnings about an authority, and raises if it is unusable; `path` is where the Mesh describes it.

    Raises:
        InvalidResource: it cannot be used; with every reason.
    """
    chain, authority = _opened(mesh, backend, path, secrets)
    wrong = tuple(ca_requirements.violations(f"{path}.cert", chain, now))
    if wrong:
        raise InvalidResource(wrong)
    try:
        await trial.check(mesh, authority, now)
    except AuthorityUnusable as error:
        raise InvalidResource.of(f"{path}.cert", str(error)) from None
    return tuple(ca_requirements.warnings(f"{path}.cert", chain, backend, now))


def _opened(mesh: str, backend: Backend, path: str, secrets: Secrets) -> tuple[Sequence[x509.Certificate], Authority]:
    try:
        cert, _ = registry.content(mesh, backend, secrets)
    except AuthorityUnusable as error:  # said of both, as the original does
        raise InvalidResource(Violation(f"{path}.{part}", str(error)) for part in ("cert", "key")) from None
    try:
        return pem.read_chain(cert), registry.open_authority(mesh, backend, secrets)
    except pem.DamagedCertificate as error:
        raise InvalidResource.of(f"{path}.cert[{error.index}]", str(error)) from None
    except AuthorityUnusable as error:
        raise InvalidResource.of(f"{path}.cert", str(error)) from None
