"""Access logs: the backends of a Mesh, TrafficLogs that choose one of them, and MeshAccessLogs with their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, StrictBool
from pydantic_core import PydanticCustomError

from kuma.base.errors import Violation
from kuma.resources.models import target_ref, traffic_permission
from kuma.resources.models.blocks import backend_names, log_format
from kuma.resources.models.target_ref import TargetRef
from kuma.resources.models.traffic_permission import Selector
from kuma.resources.resource import DISCRIMINATOR, Model, plain

_PATH = re.compile(r"/[\x21-\x7e]{1,4000}")
_TYPES = ("file", "tcp")
_NOT_WRITTEN = "is stored and given back, and has no effect here: only files are written"


class Sink(NamedTuple):
    """A file that access logs go to, and how their lines look; by default as suits the protocol."""

    path: str
    text: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    omits_empty: bool = False


class LoggingConf(Model):
    """Where a backend of a Mesh writes to: the path of a file beside the proxy, or an address."""

    path: str = ""
    address: str = ""


def _known_type(value: str) -> str:
    if value not in _TYPES:
        text = 'unknown backend type "{type}". Available backends: {known}'
        raise PydanticCustomError(DISCRIMINATOR, text, {"type": plain(value), "known": ", ".join(_TYPES)})
    return value


class LoggingBackend(Model):
    """One way to write access logs."""

    name: str = ""
    type: Annotated[str, AfterValidator(_known_type)]
    format: str = ""
    conf: LoggingConf = LoggingConf()

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """The file that is written, if one is."""
        return (Sink(self.conf.path, self.format),) if self.type == "file" else ()


class Logging(Model):
    """Access logs of a mesh; TrafficLogs say whose calls are logged, and by which backend."""

    default_backend: str = ""
    backends: tuple[LoggingBackend, ...] = ()

    def sinks(self, name: str) -> tuple[Sink, ...]:
        """Returns what the backend of this name writes; the default one's if it is empty."""
        wanted = name or self.default_backend
        return next((backend.sinks for backend in self.backends if wanted and backend.name == wanted), ())


class TrafficLogConf(Model):
    """The backend of a TrafficLog; empty for the Mesh's default."""

    backend: str = ""


class TrafficLogSpec(Model):
    """Spec of a TrafficLog: calls from these sources to these destinations are logged where they begin."""

    sources: tuple[Selector, ...] = ()
    destinations: tuple[Selector, ...] = ()
    conf: TrafficLogConf | None = None


class Pair(Model):
    """A field of a JSON log."""

    key: str
    value: str


class Format(Model):
    """How lines look: `plain` text, or `json` with these fields."""

    type: Literal["", "Plain", "Json"] = ""
    plain: str = ""
    json_fields: tuple[Pair, ...] = Field(default=(), alias="json")
    omit_empty_values: StrictBool = False


class FileBackend(Model):
    """A file beside the proxy."""

    path: str = ""
    format: Format = Format()


class AccessLogBackend(Model):
    """One backend of a MeshAccessLog."""

    type: Literal["", "File", "Tcp", "OpenTelemetry"] = ""
    file: FileBackend | None = None
    tcp: Any = None
    open_telemetry: Any = None

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """The file that is written, if one is."""
        if self.file is None:
            return ()
        form = self.file.format
        fields = tuple((pair.key, pair.value) for pair in form.json_fields)
        return (Sink(self.file.path, form.plain, fields, form.omit_empty_values),)


class AccessLogDefault(Model):
    """The backends that are written to; an empty list writes nothing."""

    backends: tuple[AccessLogBackend, ...] | None = None

    @property
    def sinks(self) -> tuple[Sink, ...] | None:
        """The files that are written; None if nothing is said."""
        return None if self.backends is None else tuple(sink for backend in self.backends for sink in backend.sinks)


class AccessLogItem(Model):
    """Calls to, or from, a part of the mesh."""

    target_ref: TargetRef = TargetRef()
    default: AccessLogDefault = AccessLogDefault()


class AccessLogRule(Model):
    """Calls to the inbounds, whoever makes them; with `matches` only some, and nothing is written for those."""

    matches: tuple[Any, ...] = ()
    default: AccessLogDefault = AccessLogDefault()


class MeshAccessLogSpec(Model):
    """Spec of a MeshAccessLog. `to` is about outbounds of the Dataplanes that it is for, the others about inbounds."""

    target_ref: TargetRef | None = None
    to: tuple[AccessLogItem, ...] = ()
    from_: tuple[AccessLogItem, ...] = Field(default=(), alias="from")
    rules: tuple[AccessLogRule, ...] = ()

    @property
    def selected(self) -> Mapping[str, str]:
        """The facets by which it selects Dataplanes; none for all of the mesh."""
        return self.target_ref.selected if self.target_ref else {}

    @property
    def backends(self) -> Iterator[tuple[str, AccessLogBackend]]:
        """Every backend, with its field."""
        lists: tuple[tuple[str, Iterable[Any]], ...] = (("to", self.to), ("from", self.from_), ("rules", self.rules))
        for name, items in lists:
            for index, item in enumerate(items):
                for number, backend in enumerate(item.default.backends or ()):
                    yield f"{name}[{index}].default.backends[{number}]", backend


def validate_mesh(logging: Logging | None) -> Iterator[Violation]:
    """Refuses backends of a Mesh that cannot be told apart, or that Envoy would refuse."""
    seen: set[str] = set()
    for index, backend in enumerate(logging.backends if logging else ()):
        path = f"logging.backends[{index}]"
        yield from backend_names.validate(path, backend.name, seen)
        yield from (Violation(f"{path}.format", mistake) for mistake in log_format.mistakes(backend.format))
        if backend.type == "file":
            yield from _file(f"{path}.conf.path", backend.conf.path)
    if logging is not None and logging.default_backend and logging.default_backend not in seen:
        yield Violation("logging.defaultBackend", "has to be set to one of the logging backend in mesh")


def not_done_in_mesh(logging: Logging | None) -> Iterator[Violation]:
    """Says which backends of a Mesh are not written to."""
    for index, backend in enumerate(logging.backends if logging else ()):
        if backend.type != "file":
            yield Violation(f"logging.backends[{index}].type", _NOT_WRITTEN)


def validate_traffic_log(spec: TrafficLogSpec) -> Iterator[Violation]:
    """Checks a TrafficLog."""
    yield from traffic_permission.validate_selectors(spec.sources, spec.destinations)


def validate(spec: MeshAccessLogSpec) -> Iterator[Violation]:
    """Checks a MeshAccessLog."""
    if spec.target_ref is not None:
        yield from target_ref.validate("targetRef", spec.target_ref)
    if not spec.to and not spec.from_ and not spec.rules:
        yield Violation("spec", "at least one of to, from and rules has to be defined")
    for name, items in (("to", spec.to), ("from", spec.from_)):
        for index, item in enumerate(items):
            if not item.target_ref.kind:
                yield Violation(f"{name}[{index}].targetRef.kind", "must be defined")
    for path, backend in spec.backends:
        if sum(given is not None for given in (backend.file, backend.tcp, backend.open_telemetry)) != 1:
            yield Violation(path, "must have exactly one defined: file, tcp, openTelemetry")
        elif backend.file is not None:
            yield from _file(f"{path}.file.path", backend.file.path)
            yield from _format(f"{path}.file.format", backend.file.format)


def not_done(spec: MeshAccessLogSpec) -> Iterator[Violation]:
    """Says what of a MeshAccessLog has no effect here."""
    for path, backend in spec.backends:
        if backend.file is None:
            yield Violation(path, _NOT_WRITTEN)
    for index, item in enumerate(spec.to):
        if item.target_ref.kind not in ("", "Mesh", "MeshService"):
            yield Violation(f"to[{index}].targetRef.kind", "has no effect here: only Mesh and MeshService have")
    for index, item in enumerate(spec.from_):
        if item.target_ref.kind not in ("", "Mesh"):
            yield Violation(f"from[{index}].targetRef.kind", "has no effect here: only Mesh has")
    for index, rule in enumerate(spec.rules):
        if rule.matches:
            reason = (
                "is stored and given back, and nothing is written for it: only rules for all callers have an effect"
            )
            yield Violation(f"rules[{index}].matches", reason)


def _file(field: str, path: str) -> Iterator[Violation]:
    if not _PATH.fullmatch(path):
        yield Violation(field, 'has to be the absolute path of a file, such as "/dev/stdout"')


def _format(field: str, form: Format) -> Iterator[Violation]:
    if form.plain and form.json_fields:
        yield Violation(field, "must have at most one defined: plain, json")
    yield from (Violation(f"{field}.plain", mistake) for mistake in log_format.mistakes(form.plain))
    for index, pair in enumerate(form.json_fields):
        if not pair.key:
            yield Violation(f"{field}.json[{index}].key", "cannot be empty")
        for mistake in log_format.mistakes(pair.value):
            yield Violation(f"{field}.json[{index}].value", mistake)
