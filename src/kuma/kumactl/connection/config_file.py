"""kumactl's configuration file: which control planes there are, and which one is meant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from kuma.base.errors import Misconfigured

TOKENS = "tokens"
"""The way to authenticate by a user token."""
DEFAULT_ADDRESS = "http://localhost:5681"
_T = TypeVar("_T")


class _Invalid(Exception):
    """Something that is no part of such a file; the text says where and what."""


@dataclass(frozen=True, slots=True)
class Header:
    """A header of the user's choice."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Address, headers and TLS settings of one control plane. Other fields of the original's file are `others`."""

    url: str
    ca_cert_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    skip_verify: bool = False
    auth_type: str = ""
    auth_conf: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: tuple[Header, ...] = field(default=(), repr=False)
    others: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def request_headers(self) -> dict[str, str]:
        """Returns the headers of every request: those of the user's choice, and the token."""
        found = {header.key.lower(): header.value for header in self.headers}
        token = self.auth_conf.get("token") if self.auth_type == TOKENS else None
        return {**found, "authorization": f"Bearer {token}"} if token else found


@dataclass(frozen=True, slots=True)
class KnownControlPlane:
    """A control plane with a name."""

    name: str
    api_server: ApiServer


@dataclass(frozen=True, slots=True)
class Context:
    """A way to work: today, a control plane."""

    name: str
    control_plane: str
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    control_planes: tuple[KnownControlPlane, ...] = ()
    contexts: tuple[Context, ...] = ()
    current_context: str = ""

    def current(self) -> KnownControlPlane:
        """The control plane that commands go to.

        Raises:
            Misconfigured: none is chosen, or the chosen one is not listed.
        """
        planes = {context.name: context.control_plane for context in self.contexts}
        wanted = planes.get(self.current_context)
        for plane in self.control_planes:
            if plane.name == wanted:
                return plane
        remedy = "switch --name NAME" if self.control_planes else "add --name NAME --address URL"
        raise Misconfigured(f"no control plane is chosen. Run: kumactl config control-planes {remedy}")

    def adding(self, name: str, api_server: ApiServer) -> Config:
        """Returns the configuration with one more control plane (or another one under that name), which is chosen."""
        others = self.without(name)
        return Config(
            (*others.control_planes, KnownControlPlane(name, api_server)), (*others.contexts, Context(name, name)), name
        )

    def without(self, name: str) -> Config:
        """Returns the configuration without the control plane of that name."""
        gone = {context.name for context in self.contexts if context.control_plane == name}
        return Config(
            tuple(plane for plane in self.control_planes if plane.name != name),
            tuple(context for context in self.contexts if context.name not in gone),
            "" if self.current_context in gone else self.current_context,
        )

    def switched(self, name: str) -> Config | None:
        """Returns the configuration with that control plane chosen; None if it does not know it."""
        names = [context.name for context in self.contexts if context.control_plane == name]
        return replace(self, current_context=names[0]) if names else None

    def to_file(self) -> dict[str, Any]:
        """Returns what stands in the file, without what is not set."""
        found: dict[str, Any] = {
            "controlPlanes": [_written_plane(plane) for plane in self.control_planes],
            "contexts": [
                {**context.others, "name": context.name, "controlPlane": context.control_plane}
                for context in self.contexts
            ],
            "currentContext": self.current_context,
        }
        return {name: value for name, value in found.items() if value}


def default() -> Config:
    """Returns the configuration before anything is configured: the control plane on this machine."""
    return Config().adding("local", ApiServer(url=DEFAULT_ADDRESS))


def location(given: Path | None) -> Path:
    """Returns the path of the file."""
    return given or Path("~/.kumactl/config").expanduser()


def load(path: Path) -> Config:
    """The configuration in a file; the default if there is none.

    Raises:
        Misconfigured: the file cannot be read or understood.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return default()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read {path}: {error}") from None
    try:
        return _config(yaml.safe_load(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise Misconfigured(f"{path} is not valid YAML{where}") from None
    except _Invalid as error:
        raise Misconfigured(f"{path} is no configuration of kumactl: {error}") from None


def _config(data: Any) -> Config:
    found = _Fields("", {} if data is None else data)
    config = Config(
        found.several("controlPlanes", _plane), found.several("contexts", _context), found.text("currentContext")
    )
    found.end()
    return config


def _plane(found: _Fields) -> KnownControlPlane:
    coordinates = found.part("coordinates")
    plane = KnownControlPlane(found.text("name", required=True), _api_server(coordinates.part("apiServer")))
    coordinates.end()
    found.end()
    return plane


def _api_server(found: _Fields) -> ApiServer:
    return ApiServer(
        **{name: found.text(field_name) for name, field_name in _TEXTS.items()},
        url=found.text("url", required=True),
        skip_verify=found.take("skipVerify", bool, False),
        auth_conf=found.texts("authConf"),
        headers=found.several(
            "headers", lambda header: Header(header.text("key", required=True), header.text("value"))
        ),
        others=found.rest(),
    )


_TEXTS = {
    "ca_cert_file": "caCertFile",
    "client_cert_file": "clientCertFile",
    "client_key_file": "clientKeyFile",
    "auth_type": "authType",
}


def _context(found: _Fields) -> Context:
    return Context(found.text("name", required=True), found.text("controlPlane", required=True), found.rest())


class _Fields:
    """The fields of one map of the file, each taken once; `where` is its path."""

    def __init__(self, where: str, data: Any) -> None:
        if not isinstance(data, dict):
            raise _Invalid(f"{where or 'it'} is missing or of the wrong type")
        self._where = where
        self._left = dict(data)

    def take(self, name: str, of: type[_T], default: _T | None = None) -> _T:
        """Take a field out; the default stands for one that is not there."""
        found = self._left.pop(name, None)
        found = default if found is None else found
        if not isinstance(found, of):
            raise _Invalid(f"{self._path(name)} is missing or of the wrong type")
        return found

    def text(self, name: str, *, required: bool = False) -> str:
        return self.take(name, str, None if required else "")

    def texts(self, name: str) -> Mapping[str, str]:
        """Take a map of names to texts out."""
        found = _Fields(self._path(name), self.take(name, dict, {}))
        return {key: found.text(key) for key in tuple(found._left)}

    def part(self, name: str) -> _Fields:
        return _Fields(self._path(name), self._left.pop(name, None))

    def several(self, name: str, make: Callable[[_Fields], _T]) -> tuple[_T, ...]:
        """Take a list out, and make something of each of its maps."""
        items: Sequence[Any] = self.take(name, list, [])
        return tuple(make(_Fields(f"{self._path(name)}[{i}]", item)) for i, item in enumerate(items))

    def rest(self) -> Mapping[str, Any]:
        """Returns what has not been taken."""
        return self._left

    def end(self) -> None:
        """Complain of what has not been taken."""
        for name in self._left:
            raise _Invalid(f"{self._path(str(name))} is an unknown field")

    def _path(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name


def _written_plane(plane: KnownControlPlane) -> dict[str, Any]:
    server = plane.api_server
    found: dict[str, Any] = {
        **server.others,
        "url": server.url,
        **{field_name: getattr(server, name) for name, field_name in _TEXTS.items()},
        "skipVerify": server.skip_verify,
        "authConf": dict(server.auth_conf),
        "headers": [{"key": header.key, "value": header.value} for header in server.headers],
    }
    return {
        "name": plane.name,
        "coordinates": {"apiServer": {name: value for name, value in found.items() if value}},
    }


def save(path: Path, config: Config) -> None:
    """Replace the file; it may hold tokens, so only its owner reads it.

    Raises:
        Misconfigured: it cannot be written.
    """
    from kuma.base import files  # most commands write nothing, and start faster without it

    text: str = yaml.safe_dump(config.to_file(), sort_keys=True)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, text.encode())
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror}") from None
