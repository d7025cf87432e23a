"""Examines an authority before it is taken: all rules, whichever resource its certificate and key come with."""

from __future__ import annotations

from datetime import datetime

from kuma.authorities.driver import Driver
from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.errors import InvalidResource, Violation
from kuma.pki import ca_requirements, pem, trial
from kuma.pki.authority import AuthorityUnusable, NotLoaded
from kuma.resources.models.mesh import Backend
from kuma.resources.models.secret import Secrets


def path_of(backend: Backend, index: int) -> str:
    """Returns the field of the Mesh that says what an authority is made of."""
    return f"mtls.backends[{index}].{backend.spelling}"


async def examine(
    mesh: str, backend: Backend, path: str, secrets: Secrets, now: datetime, drivers: Drivers = STANDARD
) -> tuple[str, ...]:
    """Returns warnings about an authority, and raises if it is unusable; `path` is where the Mesh describes it.

    Of an authority that the control plane does not hold, the roots are looked at, and whether it signs what verifies.

    Raises:
        InvalidResource: it cannot be used; with every reason.
    """
    driver = drivers.of(backend)
    held = _pair(driver, mesh, backend, path, secrets)
    field = path if held is None else f"{path}.cert"
    try:
        chain = None if held is None else pem.read_chain(held[0])
        authority = driver.open(mesh, backend, secrets)
        chain = pem.read_chain(authority.roots_pem) if chain is None else chain
    except pem.DamagedCertificate as error:
        raise InvalidResource.of(f"{field}[{error.index}]", str(error)) from None
    except AuthorityUnusable as error:
        raise InvalidResource.of(field, str(error)) from None
    wrong = tuple(ca_requirements.violations(field, chain, now))
    if wrong:
        raise InvalidResource(wrong)
    try:
        await trial.check(mesh, authority, now)
    except AuthorityUnusable as error:
        raise InvalidResource.of(field, str(error)) from None
    return tuple(ca_requirements.warnings(field, chain, backend, now))


def _pair(driver: Driver, mesh: str, backend: Backend, path: str, secrets: Secrets) -> tuple[bytes, bytes] | None:
    try:
        return driver.pair(mesh, backend, secrets)
    except NotLoaded as error:
        raise InvalidResource(Violation(f"{path}.{part}", reason) for part, reason in error.reasons.items()) from None
    except AuthorityUnusable as error:  # of one source for both: said of both
        raise InvalidResource(Violation(f"{path}.{part}", str(error)) for part in ("cert", "key")) from None
