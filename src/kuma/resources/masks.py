"""Masks the inline private keys of a Mesh for readers."""

from __future__ import annotations

import re
from collections.abc import Callable

from kuma.base.errors import InvalidResource, Violation
from kuma.resources.models.mesh import Backend, DataSource, MeshSpec

MASK = b"*****"
"""Stands for what is not shown. Applied again, it means what is stored."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]*-----END CERTIFICATE-----\s*")


def masked(spec: MeshSpec) -> MeshSpec:
    """Returns the Mesh as it is shown: without inline private keys, even where only certificates are expected."""
    return _with_sources(spec, lambda _, part, source: _hidden(part, source))


def unmasked(spec: MeshSpec, old: MeshSpec | None) -> MeshSpec:
    """Returns the Mesh as it is meant: what is masked is what the backend of that name in `old` has there.

    Raises:
        InvalidResource: nothing is stored that a mask could stand for.
    """
    known = {backend.name: backend.settings for backend in (old.backends if old else ())}

    def restored(backend: Backend, part: str, source: DataSource) -> DataSource:
        before = getattr(known.get(backend.name), part, None)
        return before if before is not None and _hidden(part, before) == source else source

    found = _with_sources(spec, restored)
    violations = [
        Violation(f"mtls.backends[{index}].{backend.spelling}.{part}", _IS_MASK)
        for index, backend in enumerate(found.backends)
        for part in ("cert", "key")
        if _is_masked(getattr(backend.settings, part))
    ]
    if violations:
        raise InvalidResource(violations)
    return found


_IS_MASK = (
    "this is the mask, not a key: it means what is stored, and no backend of this name has that here. Give the key "
    "itself; administrators read it with ?reveal=true, and `kumactl export` has it"
)


def _is_masked(source: DataSource | None) -> bool:
    if source is None:
        return False
    return any(text.rstrip().endswith(MASK) for text in (source.inline or b"", (source.inline_string or "").encode()))


def _hidden(part: str, source: DataSource) -> DataSource:
    hide = _without_keys if part == "cert" else _mask
    changes: dict[str, object] = {}
    if source.inline is not None:
        changes["inline"] = hide(source.inline)
    if source.inline_string is not None:
        changes["inline_string"] = hide(source.inline_string.encode()).decode()
    return source.model_copy(update=changes) if changes else source


def _mask(_: bytes) -> bytes:
    return MASK


def _without_keys(pem: bytes) -> bytes:
    """Only what certainly is a certificate is shown: a damaged key is one, too."""
    certificates = b"".join(_CERTIFICATE.findall(pem))
    return pem if certificates == pem.lstrip() else certificates + MASK


def _with_sources(spec: MeshSpec, change: Callable[[Backend, str, DataSource], DataSource]) -> MeshSpec:
    """Returns the Mesh with other inline sources; the very same one if nothing changes."""
    if spec.mtls is None:
        return spec
    backends = tuple(_with_source(backend, change) for backend in spec.mtls.backends)
    if backends == spec.mtls.backends:
        return spec
    return spec.model_copy(update={"mtls": spec.mtls.model_copy(update={"backends": backends})})


def _with_source(backend: Backend, change: Callable[[Backend, str, DataSource], DataSource]) -> Backend:
    parts = {part: getattr(backend.settings, part) for part in ("cert", "key")}
    changes = {part: change(backend, part, source) for part, source in parts.items() if source is not None}
    conf = backend.settings.model_copy(update=changes)
    return backend.model_copy(update={backend.spelling: conf})
