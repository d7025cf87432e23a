"""The Mesh: a group of services with one trust domain, and its mutual TLS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

from pydantic import Field, StrictInt

from kuma.base.errors import Violation
from kuma.resources import durations
from kuma.resources.resource import Model

DEFAULT_LEAF_LIFETIME = timedelta(days=30)
DEFAULT_ROOT_LIFETIME = timedelta(days=10 * 365)
SHORTEST_LEAF_LIFETIME = timedelta(seconds=1)
SHORTEST_ROOT_LIFETIME = timedelta(minutes=1)
RSA_BITS = range(2048, 8193)
"""Below, a root can be broken; above, making one key takes minutes."""
_BACKEND_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)


class Rotation(Model):
    """How long a leaf lives; it is replaced at 4/5 of that."""

    expiration: str = ""


class DpCert(Model):
    """How the certificates of data plane proxies are issued."""

    rotation: Rotation | None = None
    request_timeout: str = ""


class RootChain(Model):
    """How the authority's own certificates are read."""

    request_timeout: str = ""


class CaCert(Model):
    """Properties of a root that the control plane makes. Without `RSAbits` its key is ECDSA P-256."""

    rsa_bits: StrictInt | None = Field(default=None, alias="RSAbits")
    expiration: str = ""

    @property
    def lifetime(self) -> timedelta:
        return durations.parse_duration(self.expiration) if self.expiration else DEFAULT_ROOT_LIFETIME


class BuiltinConf(Model):
    """What can be said of a `builtin` authority."""

    ca_cert: CaCert = CaCert()


class Backend(Model):
    """One authority of a mesh."""

    name: str
    type: str
    mode: Literal["STRICT"] = "STRICT"
    dp_cert: DpCert | None = None
    root_chain: RootChain | None = None
    conf: BuiltinConf = BuiltinConf()

    @property
    def leaf_lifetime(self) -> timedelta:
        """How long the certificates that this authority issues live; 30 days unless configured."""
        rotation = self.dp_cert.rotation if self.dp_cert else None
        if rotation is None or not rotation.expiration:
            return DEFAULT_LEAF_LIFETIME
        return durations.parse_duration(rotation.expiration)


class Mtls(Model):
    """Mutual TLS of a mesh: any number of authorities, of which at most one issues."""

    enabled_backend: str = ""
    backends: tuple[Backend, ...] = ()

    @property
    def enabled(self) -> Backend | None:
        """The authority that issues, or None while mutual TLS is off."""
        return next((b for b in self.backends if self.enabled_backend and b.name == self.enabled_backend), None)


class MeshSpec(Model):
    """What a Mesh says."""

    mtls: Mtls | None = None

    @property
    def enabled_backend(self) -> Backend | None:
        """The authority that issues, or None while mutual TLS is off."""
        return self.mtls.enabled if self.mtls else None


NOT_IMPLEMENTED = frozenset(
    {"constraints", "logging", "meshServices", "metrics", "networking", "routing", "skipCreatingInitialPolicies"}
    | {"tracing", "mtls.skipValidation"}
)
"""Fields of the original's Mesh that this control plane has no use for."""


def validate(spec: MeshSpec) -> Iterator[Violation]:
    """Every rule of a Mesh that its structure alone does not express."""
    if spec.mtls is None:
        return
    seen: set[str] = set()
    for index, backend in enumerate(spec.mtls.backends):
        path = f"mtls.backends[{index}]"
        if backend.name in seen:
            yield Violation(f"{path}.name", f'"{backend.name}" name is already used for another backend')
        seen.add(backend.name)
        yield from _backend(backend, path)
    if spec.mtls.enabled_backend and spec.mtls.enabled_backend not in seen:
        listed = ", ".join(sorted(seen)) or "none is listed"
        yield Violation(
            "mtls.enabledBackend", f"has to be set to one of the backends in the mesh (mtls.backends: {listed})"
        )


def _backend(backend: Backend, path: str) -> Iterator[Violation]:
    if not backend.name:
        yield Violation(f"{path}.name", "cannot be empty")
    elif len(backend.name) > 63 or not _BACKEND_NAME.fullmatch(backend.name):
        # The name becomes part of a Secret's name, which has to be a DNS subdomain.
        yield Violation(
            f"{path}.name", "must be at most 63 lower case letters, digits, '-' or '.', and begin and end alphanumeric"
        )
    if backend.type != "builtin":
        yield Violation(
            f"{path}.type", f'could not find installed plugin for this type: "{backend.type}". Available types: builtin'
        )
    if backend.dp_cert is not None:
        rotation = backend.dp_cert.rotation
        if rotation is not None and rotation.expiration:
            yield from _lifetime(f"{path}.dpCert.rotation.expiration", rotation.expiration, SHORTEST_LEAF_LIFETIME)
        yield from _timeout(f"{path}.dpCert.requestTimeout", backend.dp_cert.request_timeout)
    if backend.root_chain is not None:
        yield from _timeout(f"{path}.rootChain.requestTimeout", backend.root_chain.request_timeout)
    ca_cert = backend.conf.ca_cert
    if ca_cert.rsa_bits is not None and ca_cert.rsa_bits not in RSA_BITS:
        yield Violation(
            f"{path}.conf.caCert.RSAbits",
            f"has to be between {RSA_BITS[0]} and {RSA_BITS[-1]}; leave it out for an ECDSA P-256 root",
        )
    if ca_cert.expiration:
        yield from _lifetime(f"{path}.conf.caCert.expiration", ca_cert.expiration, SHORTEST_ROOT_LIFETIME)


def _lifetime(field: str, text: str, shortest: timedelta) -> Iterator[Violation]:
    try:
        if durations.parse_duration(text) < shortest:
            yield Violation(field, f'has to be at least "{int(shortest.total_seconds())}s"')
    except ValueError as error:
        yield Violation(field, f"has to be a valid format: {error}")


def _timeout(field: str, text: str) -> Iterator[Violation]:
    if text:
        try:
            durations.parse_timeout(text)
        except ValueError as error:
            yield Violation(field, str(error))


def warnings(spec: MeshSpec) -> Iterator[str]:
    """What is allowed but should be known."""
    if spec.mtls and spec.mtls.backends and not spec.mtls.enabled_backend:
        yield "mtls.enabledBackend is empty: mutual TLS is off for this mesh"
