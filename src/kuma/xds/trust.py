"""What a mesh trusts and who issues in it, derived from the Mesh and its Secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.pki.backends import fingerprint, open_authority
from kuma.resources.mesh import Backend
from kuma.resources.view import MeshView
from kuma.xds import naming, security
from kuma.xds.entry import Entry

log = structlog.get_logger(__name__)

_Content = tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """The trust bundle of a mesh and its authorities; `problems` says why one cannot be opened."""

    bundle: Entry | None = None
    problems: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    opened: Mapping[str, tuple[_Content, Authority]] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def supported(self) -> tuple[str, ...]:
        """The backends whose roots are in the bundle."""
        return tuple(self.opened)

    def enabled(self, backend: str) -> Authority:
        """The authority of this backend; never another one instead.

        Raises:
            AuthorityUnusable: it cannot be opened.
        """
        if backend in self.opened:
            return self.opened[backend][1]
        raise AuthorityUnusable(self.problems.get(backend, f'backend "{backend}" is not known yet'))


NONE = Trust()


def trust(view: MeshView, previous: Trust = NONE) -> Trust:
    """The trust of a mesh as it is now; what has not changed stays the very same object."""
    if view.mesh is None or view.mesh.spec.mtls is None:
        return NONE
    opened: dict[str, tuple[_Content, Authority]] = {}
    problems: dict[str, str] = {}
    for backend in view.mesh.spec.mtls.backends:
        try:
            opened[backend.name] = _open(view, backend, previous)
        except AuthorityUnusable as error:
            if backend.name in previous.opened:  # the last good one goes on
                opened[backend.name] = previous.opened[backend.name]
            problems[backend.name] = str(error)
            if previous.problems.get(backend.name) != str(error):
                log.error("authority cannot be opened", mesh=view.name, backend=backend.name, reason=str(error))
    bundle = _bundle(view.name, {name: authority for name, (_, authority) in opened.items()})
    found = Trust(bundle, problems, opened)
    return previous if found == previous else found


def _open(view: MeshView, backend: Backend, previous: Trust) -> tuple[_Content, Authority]:
    content = fingerprint(view.name, backend, view.secrets)
    known = previous.opened.get(backend.name)
    if known is not None and known[0] == content:
        return known
    return content, open_authority(view.name, backend, view.secrets)


def _bundle(mesh: str, authorities: Mapping[str, Authority]) -> Entry | None:
    """The roots of every listed authority. None rather than empty: without a bundle Envoy trusts nobody."""
    if not authorities:
        return None
    roots = b"".join(authorities[name].roots_pem for name in sorted(authorities))
    return Entry.of(naming.trust_bundle_secret(mesh), security.trust_bundle(mesh, roots))
