"""Rules for changes of Secrets: the Secrets of listed authorities are neither deleted nor damaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from kuma.admission.ca_examination import examine, path_of
from kuma.admission.rollout_announcement import announced
from kuma.authorities import retained
from kuma.authorities.driver import Driver
from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.clock import Clock
from kuma.base.errors import InvalidResource, Violation
from kuma.pki import ca_requirements, pem, trial
from kuma.pki.authority import AuthorityUnusable
from kuma.policy import weakening
from kuma.resources import kinds
from kuma.resources.models.mesh import Backend, MeshSpec, weakening_is_refused
from kuma.resources.models.secret import Secrets, SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import Decision
from kuma.store.protocol import Expect, Store, find


@dataclass(frozen=True, slots=True)
class _Use:
    """A listed backend that uses a Secret; `secrets` are all the ones it is made of, as they are stored."""

    mesh: Resource[MeshSpec]
    index: int
    backend: Backend
    driver: Driver
    secrets: Secrets = field(repr=False)


class SecretRules:
    """Protects the Secrets of listed backends. Expects that the Mesh does not change before the transaction commits."""

    def __init__(self, clock: Clock, drivers: Drivers = STANDARD, *, guarded: bool = False) -> None:
        self._clock = clock
        self._drivers = drivers
        self._guarded = guarded
        """Whether meshes that do not say so refuse what weakens them."""

    async def on_put(self, old: Resource[SecretSpec] | None, new: Resource[SecretSpec], store: Store) -> Decision:
        """Refuses content with which any of the authorities that use it could not issue.

        Certificate and key may be in two Secrets, which are replaced, or put back, one after the other: what is right
        in itself is let through with a warning, and the authority goes on as it was until the other one has come.
        """
        uses = await self._uses(new, store)
        if not uses:
            if old is not None and old.spec != new.spec and await self._issues_still(old, store):
                raise InvalidResource.of("data", _ISSUES_STILL.format(name=old.name, mesh=old.mesh))
            return Decision()
        warnings: list[str] = []
        refused: list[Violation] = []
        whole = False
        for use in uses:
            try:
                warnings += await self._examined(use, new)
                whole = True
            except InvalidResource as error:
                own = await self._own_faults(use, new)
                if not own and _is_half(use, new):
                    warnings.append(_half_told(use, new))
                else:
                    refused.append(_refusal(use, own or error.violations))
        if refused:
            raise InvalidResource(refused)
        mesh = uses[0].mesh
        looked_at = Expect(mesh.key, mesh.version)
        if old is not None and old.spec == new.spec:
            return Decision((looked_at,), tuple(warnings))
        announcement = await announced(mesh.name, store) if whole else ()
        operations = (looked_at, *await retained.retain(mesh.name, store, self._drivers), *announcement)
        return Decision(
            operations,
            tuple(warnings),
            staged=whole,
            weakens=tuple(_further_trust(use) for use in uses if whole and old is not None and _is_further(use, new)),
            guarded=weakening_is_refused(mesh.labels, self._guarded),
        )

    async def on_delete(self, old: Resource[SecretSpec], store: Store) -> Decision:
        """Refuses to delete what listed backends are made of."""
        violations = [
            Violation(
                "name",
                f'The secret "{old.name}" that you are trying to remove is currently in use in Mesh "{use.mesh.name}" '
                f'in mTLS backend "{use.backend.name}". Please remove the reference from the "{use.backend.name}" '
                "backend before removing the secret.",
            )
            for use in await self._uses(old, store)
        ]
        if violations:
            raise InvalidResource(violations)
        if await self._issues_still(old, store):
            raise InvalidResource.of("name", _ISSUES_STILL.format(name=old.name, mesh=old.mesh))
        return Decision()

    async def _issues_still(self, secret: Resource[SecretSpec], store: Store) -> bool:
        """Tells whether an authority is made of it that is listed no more, and issues until a change is complete."""
        mesh = secret.mesh
        transition = await find(store, kinds.MESH_TRANSITION.key(mesh, mesh))
        if transition is None or transition.spec.complete:
            return False
        if secret.name == retained.secret_name(mesh):
            return True
        of_it = [(driver, name) for driver in self._drivers for name in driver.stored(mesh, {secret.name: secret})]
        if not of_it:
            return False
        secrets = {one.name: one for one in (await store.list(kinds.SECRET.name, mesh)).items}
        with suppress(AuthorityUnusable):
            return any(
                driver.open_stored(mesh, name, secrets).fingerprint == transition.spec.position.authority
                for driver, name in of_it
            )
        return False

    async def _examined(self, use: _Use, new: Resource[SecretSpec]) -> Sequence[str]:
        """Returns warnings about an authority as it would be after the change; see `examine`."""
        path, secrets = path_of(use.backend, use.index), {**use.secrets, new.name: new}
        return await examine(use.mesh.name, use.backend, path, secrets, self._clock.now(), self._drivers)

    async def _own_faults(self, use: _Use, new: Resource[SecretSpec]) -> tuple[Violation, ...]:
        """Returns the faults of the new Secret itself, independent of the other one of the pair."""
        cert, key = use.driver.halves(use.mesh.name, use.backend)
        now = self._clock.now()
        try:
            if new.name == key:
                pem.read_key(new.spec.data)
            if new.name != cert:
                return ()
            chain = pem.read_chain(new.spec.data)
            wrong = tuple(ca_requirements.violations("data", chain, now))
            if not wrong:
                await trial.check_without_key(use.mesh.name, chain, now)
        except AuthorityUnusable as error:
            return (Violation("data", str(error)),)
        return wrong

    async def _uses(self, secret: Resource[SecretSpec], store: Store) -> list[_Use]:
        mesh = await find(store, kinds.MESH.key(secret.mesh))
        if mesh is None:
            return []
        return [
            _Use(mesh, index, backend, driver, await self._drivers.stored_secrets(mesh.name, backend, store))
            for index, backend in enumerate(mesh.spec.backends)
            if secret.name in (driver := self._drivers.of(backend)).used_secrets(mesh.name, backend)
        ]


_ISSUES_STILL = (
    'the authority of Secret "{name}" issues in Mesh "{mesh}" until its change of mutual TLS is complete, and is '
    "removed then without you"
)


def _is_further(use: _Use, new: Resource[SecretSpec]) -> bool:
    """Tells whether with a Secret others are trusted beside the authority that is enabled: not those of our own."""
    cert, _ = use.driver.halves(use.mesh.name, use.backend)
    enabled = use.mesh.spec.enabled_backend
    if enabled in (None, use.backend) or use.driver.makes_root:
        return False
    return new.name == cert or not _opens(use, use.secrets)


def _further_trust(use: _Use) -> Violation:
    return Violation("data", weakening.further_trust(use.backend))


def _is_half(use: _Use, new: Resource[SecretSpec]) -> bool:
    """Tells whether the only fault of an authority lies in the other one of its two Secrets."""
    cert, key = use.driver.halves(use.mesh.name, use.backend)
    if not cert or not key or cert == key or _opens(use, {**use.secrets, new.name: new}):
        return False  # nothing comes that could make it right
    # A root that we have made and that works is never replaced by halves: nobody has another pair of it.
    return not use.driver.makes_root or not _opens(use, use.secrets)


def _half_told(use: _Use, new: Resource[SecretSpec]) -> str:
    names = use.driver.used_secrets(use.mesh.name, use.backend)
    missing = next((name for name in names if name != new.name and name not in use.secrets), "")
    text = _WAITS if missing else _HALF
    return text.format(name=new.name, backend=use.backend.name, missing=missing)


_WAITS = (
    'mTLS backend "{backend}" waits for the other Secret that it is made of, "{missing}"; what it has issued goes on'
)
_HALF = (
    'Secret "{name}" and the other Secret of mTLS backend "{backend}" do not belong together now: the backend goes on '
    "as it was until the other one is replaced, too"
)


def _refusal(use: _Use, violations: Iterable[Violation]) -> Violation:
    reasons = "; ".join(dict.fromkeys(violation.reason for violation in violations))
    return Violation(
        "data",
        f'would break mTLS backend "{use.backend.name}" of Mesh "{use.mesh.name}", which uses this Secret: {reasons}',
    )


def _opens(use: _Use, secrets: Secrets) -> bool:
    try:
        use.driver.open(use.mesh.name, use.backend, secrets)
    except AuthorityUnusable:
        return False
    return True
