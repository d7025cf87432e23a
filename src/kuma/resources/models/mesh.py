"""The Mesh: a group of services with one trust domain, and its mutual TLS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt
from pydantic_core import PydanticCustomError

from kuma.base.errors import Violation
from kuma.base.values import durations
from kuma.resources.duration import Duration, written
from kuma.resources.models.blocks import mesh_blocks
from kuma.resources.models.secret import Base64
from kuma.resources.resource import DISCRIMINATOR, Model, plain

DEFAULT_LEAF_LIFETIME = timedelta(days=30)
DEFAULT_ROOT_LIFETIME = timedelta(days=10 * 365)
SHORTEST_LEAF_LIFETIME = timedelta(seconds=1)
SHORTEST_ROOT_LIFETIME = timedelta(minutes=1)
RSA_BITS = range(2048, 8193)
"""Below, a root can be broken; above, making one key takes minutes."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SECRET_PREFIX = "ca-builtin-cert-"  # noqa: S105 - the beginning of a name
AUTHORITY_LABEL, AWAITED = "kuma.io/authority", "awaited"
"""A label of a Mesh, and its value that has it wait for Secrets that its authorities lack: nothing is made in place of
them, and nobody gets a certificate before they are there."""
WEAKENING_LABEL, REFUSED, ALLOWED = "kuma.io/weakening", "refused", "allowed"
"""A label of a Mesh, and its values: whether what weakens the mesh is refused unless it is asked for."""
_MODES = ("STRICT", "PERMISSIVE")
"""In the order of their numbers in the original's protobuf enumeration."""


_SECONDS = 'a number of seconds that ends in "s", such as "5s"'
Timeout = Annotated[str, BeforeValidator(lambda value: written(value, _SECONDS))]
"""The protobuf form of a duration."""


class Rotation(Model):
    """Lifetime of a leaf; it is replaced at 4/5 of that."""

    expiration: Duration = Duration()


class DpCert(Model):
    """Settings of the certificates of data plane proxies."""

    rotation: Rotation | None = None
    request_timeout: Timeout = ""


class RootChain(Model):
    """Settings of requests for the authority's own certificates."""

    request_timeout: Timeout = ""


class CaCert(Model):
    """Properties of a root that the control plane makes. Without `RSAbits` its key is ECDSA P-256."""

    rsa_bits: StrictInt | None = Field(default=None, alias="RSAbits")
    expiration: Duration = Duration()

    @property
    def lifetime(self) -> timedelta:
        return self.expiration.delta if self.expiration else DEFAULT_ROOT_LIFETIME


class DataSource(Model):
    """Source of an authority's certificate or key; exactly one of these."""

    secret: str | None = None
    inline: Base64 | None = Field(default=None, repr=False)
    inline_string: str | None = Field(default=None, repr=False)
    file: str | None = None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The fields that are given."""
        return tuple(
            info.alias or name for name, info in type(self).model_fields.items() if getattr(self, name) is not None
        )


class Conf(Model):
    """Settings of an authority: `caCert` of a `builtin` one, `cert` and `key` of a `provided` one."""

    ca_cert: CaCert = CaCert()
    cert: DataSource | None = None
    key: DataSource | None = None


def _mode(value: object) -> object:
    """Reads an enumeration, which may be written as its number (protobuf's JSON mapping)."""
    return _MODES[value] if type(value) is int and 0 <= value < len(_MODES) else value


def _known_type(value: str) -> str:
    """Told alone: which fields there are depends on the type."""
    if value not in TYPES:
        raise PydanticCustomError(
            DISCRIMINATOR,
            'could not find installed plugin for this type: "{type}". Available types: {known}',
            {"type": plain(value), "known": ", ".join(TYPES)},
        )
    return value


class Backend(Model):
    """One authority of a mesh. `config` is another spelling of `conf`, as the reference's own example has it."""

    name: str
    type: Annotated[str, AfterValidator(_known_type)]
    mode: Annotated[Literal["STRICT", "PERMISSIVE"], BeforeValidator(_mode)] = "STRICT"
    dp_cert: DpCert | None = None
    root_chain: RootChain | None = None
    conf: Conf = Conf()
    config: Conf | None = None

    @property
    def settings(self) -> Conf:
        """The settings of this authority, in either spelling."""
        return self.config or self.conf

    @property
    def spelling(self) -> Literal["conf", "config"]:
        """The field in which that is said."""
        return "config" if self.config else "conf"

    @property
    def leaf_lifetime(self) -> timedelta:
        """Lifetime of the leaves of this authority; 30 days unless configured."""
        rotation = self.dp_cert.rotation if self.dp_cert else None
        if rotation is None or not rotation.expiration:
            return DEFAULT_LEAF_LIFETIME
        return rotation.expiration.delta


class Mtls(Model):
    """Mutual TLS of a mesh: any number of authorities, of which at most one issues."""

    enabled_backend: str = ""
    backends: tuple[Backend, ...] = ()
    skip_validation: StrictBool = False
    """Whether a `provided` authority may come before its Secrets; what is there is examined all the same."""

    @property
    def enabled(self) -> Backend | None:
        """The authority that issues, or None while mutual TLS is off."""
        return next((b for b in self.backends if self.enabled_backend and b.name == self.enabled_backend), None)


class MeshSpec(mesh_blocks.Blocks):
    """Spec of a Mesh."""

    mtls: Mtls | None = None

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The authorities that are listed."""
        return self.mtls.backends if self.mtls else ()

    @property
    def enabled_backend(self) -> Backend | None:
        """The authority that issues, or None while mutual TLS is off."""
        return self.mtls.enabled if self.mtls else None


def validate(spec: MeshSpec) -> Iterator[Violation]:
    """Checks every rule of a Mesh that its structure alone does not express."""
    yield from mesh_blocks.validate(spec)
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
        yield Violation("mtls.enabledBackend", "has to be set to one of the backends in the mesh")


def weakening_is_refused(labels: Mapping[str, str], guarded: bool) -> bool:
    """Tells whether a Mesh with these labels is guarded; `guarded` is what holds for one that says nothing."""
    said = labels.get(WEAKENING_LABEL, "")
    return said != ALLOWED if guarded else bool(said) and said != ALLOWED


def _is_backend_name(name: str) -> bool:
    """Checks a name that becomes part of the names of Secrets, which have to be DNS subdomains even so."""
    return all(_LABEL.fullmatch(label) for whole in (name, _SECRET_PREFIX + name) for label in whole.split("."))


def _backend(backend: Backend, path: str) -> Iterator[Violation]:
    if not backend.name:
        yield Violation(f"{path}.name", "cannot be empty")
    elif len(backend.name) > 63 or not _is_backend_name(backend.name):
        yield Violation(
            f"{path}.name",
            "must be at most 63 lower case letters, digits, '-' or '.'; what is between dots must begin and end "
            "alphanumeric, and have at most 47 characters before the first dot",
        )
    if backend.config is not None and backend.conf != Conf():
        yield Violation(f"{path}.config", "is another spelling of conf; give only one of them")
    yield from TYPES[backend.type].violations(backend.settings, f"{path}.{backend.spelling}")
    if backend.dp_cert is not None:
        rotation = backend.dp_cert.rotation
        if rotation is not None and rotation.expiration:
            yield from _lifetime(f"{path}.dpCert.rotation.expiration", rotation.expiration, SHORTEST_LEAF_LIFETIME)
        yield from _timeout(f"{path}.dpCert.requestTimeout", backend.dp_cert.request_timeout)
    if backend.root_chain is not None:
        yield from _timeout(f"{path}.rootChain.requestTimeout", backend.root_chain.request_timeout)


def _builtin_conf(conf: Conf, path: str) -> Iterator[Violation]:
    for name, source in (("cert", conf.cert), ("key", conf.key)):
        if source is not None:
            yield Violation(f"{path}.{name}", "is of the type provided; a builtin CA makes its own")
    ca_cert = conf.ca_cert
    if ca_cert.rsa_bits is not None and ca_cert.rsa_bits not in RSA_BITS:
        yield Violation(
            f"{path}.caCert.RSAbits",
            f"has to be between {RSA_BITS[0]} and {RSA_BITS[-1]}; leave it out for an ECDSA P-256 root",
        )
    if ca_cert.expiration:
        yield from _lifetime(f"{path}.caCert.expiration", ca_cert.expiration, SHORTEST_ROOT_LIFETIME)


def _builtin_warnings(backend: Backend, path: str) -> Iterator[str]:
    if backend.settings.ca_cert.lifetime < backend.leaf_lifetime:
        yield (
            f"{path}.{backend.spelling}.caCert.expiration: the root ends before the certificates that it issues "
            "would: they are cut short. Let it live longer, or shorten dpCert.rotation.expiration"
        )


def _provided_conf(conf: Conf, path: str) -> Iterator[Violation]:
    if conf.ca_cert != CaCert():
        yield Violation(f"{path}.caCert", "is of the type builtin; a provided CA is what its cert and key are")
    for name, source in (("cert", conf.cert), ("key", conf.key)):
        yield from _source(f"{path}.{name}", source)


def _provided_warnings(backend: Backend, path: str) -> Iterator[str]:
    key = backend.settings.key
    if key is not None and (key.inline is not None or key.inline_string is not None):
        yield f"{path}: the CA's private key is given inline; anybody who may edit the Mesh has it. Use a Secret"


class BackendRules(NamedTuple):
    """Rules for the `conf` of one type of authority, which kumactl checks too; the rest is its driver's."""

    violations: Callable[[Conf, str], Iterator[Violation]]
    warnings: Callable[[Backend, str], Iterator[str]]


TYPES: Mapping[str, BackendRules] = {
    "builtin": BackendRules(_builtin_conf, _builtin_warnings),
    "provided": BackendRules(_provided_conf, _provided_warnings),
}
"""The types of authorities that users may declare."""


def _source(path: str, source: DataSource | None) -> Iterator[Violation]:
    if source is None:
        yield Violation(path, "has to be defined")
        return
    chosen = source.chosen
    if len(chosen) != 1:
        problem = "data source has to be chosen" if not chosen else "only one data source can be chosen"
        yield Violation(path, f"{problem}. Available sources: secret, file, inline, inlineString")
    for name, value in (("secret", source.secret), ("inline", source.inline), ("inlineString", source.inline_string),
                        ("file", source.file)):  # fmt: skip
        if value is not None and not value:
            yield Violation(f"{path}.{name}", "cannot be empty")


def _lifetime(field: str, given: Duration, shortest: timedelta) -> Iterator[Violation]:
    try:
        if given.delta < shortest:
            yield Violation(field, f'has to be at least "{int(shortest.total_seconds())}s"')
    except durations.MalformedDuration as error:
        # What the original says of it leads; the rest says what the format is.
        yield Violation(field, f"has to be a valid format: {str(error).removeprefix('has to be ')}")
    except ValueError as error:
        yield Violation(field, str(error))


def _timeout(field: str, text: str) -> Iterator[Violation]:
    if text:
        try:
            durations.parse_timeout(text)
        except ValueError as error:
            yield Violation(field, str(error))


def warnings(spec: MeshSpec) -> Iterator[str]:
    """Returns warnings about what is allowed but should be known."""
    yield from mesh_blocks.warnings(spec)
    if spec.mtls is None:
        return
    if spec.mtls.backends and not spec.mtls.enabled_backend:
        yield "mtls.enabledBackend is empty: mutual TLS is off for this mesh"
    for index, backend in enumerate(spec.mtls.backends):
        path = f"mtls.backends[{index}]"
        if backend.config is not None:
            yield f"{path}.config: is taken for conf; write conf"
        if backend.mode == "PERMISSIVE" and backend.name == spec.mtls.enabled_backend:
            yield f"{path}.mode: PERMISSIVE admits plaintext callers, which no permission can refuse. Set STRICT soon"
        yield from TYPES[backend.type].warnings(backend, path)
