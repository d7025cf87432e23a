"""kumactl's configuration file: which control planes there are, and which one is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from kuma.base import files
from kuma.base.errors import Misconfigured
from kuma.resources import codec, parsing

TOKENS = "tokens"
"""The way to authenticate by a user token."""
DEFAULT_ADDRESS = "http://localhost:5681"


class _Frame(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, extra="forbid")


class _Part(_Frame):
    """Part of the file; other fields of the original's are kept as they are."""

    model_config = ConfigDict(extra="allow")


class Header(_Part):
    """A header of the user's choice."""

    key: str
    value: str


class ApiServer(_Part):
    """Address, headers and TLS settings of one control plane."""

    url: str
    ca_cert_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    skip_verify: bool = False
    auth_type: str = ""
    auth_conf: dict[str, str] = Field(default={}, repr=False)
    headers: tuple[Header, ...] = Field(default=(), repr=False)

    @property
    def request_headers(self) -> dict[str, str]:
        """Returns the headers of every request: those of the user's choice, and the token."""
        found = {header.key.lower(): header.value for header in self.headers}
        token = self.auth_conf.get("token") if self.auth_type == TOKENS else None
        return {**found, "authorization": f"Bearer {token}"} if token else found


class Coordinates(_Frame):
    """Coordinates of one control plane."""

    api_server: ApiServer


class KnownControlPlane(_Frame):
    """A control plane with a name."""

    name: str
    coordinates: Coordinates


class Context(_Part):
    """A way to work: today, a control plane."""

    name: str
    control_plane: str


class Config(_Frame):
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
        plane = KnownControlPlane(name=name, coordinates=Coordinates(api_server=api_server))
        others = self.without(name)
        return others.model_copy(
            update={
                "control_planes": (*others.control_planes, plane),
                "contexts": (*others.contexts, Context(name=name, control_plane=name)),
                "current_context": name,
            }
        )

    def without(self, name: str) -> Config:
        """Returns the configuration without the control plane of that name."""
        gone = {context.name for context in self.contexts if context.control_plane == name}
        return self.model_copy(
            update={
                "control_planes": tuple(plane for plane in self.control_planes if plane.name != name),
                "contexts": tuple(context for context in self.contexts if context.name not in gone),
                "current_context": "" if self.current_context in gone else self.current_context,
            }
        )


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
        data: Any = yaml.safe_load(text) or {}
        return Config.model_validate(data)
    except yaml.YAMLError as error:
        raise Misconfigured(f"{path} is not valid YAML: {codec.yaml_problem(error)}") from None
    except ValidationError as error:
        raise Misconfigured(f"{path} is no configuration of kumactl: {_complaint(error)}") from None


def _complaint(error: ValidationError) -> str:
    """The first thing that is wrong; a field that nobody knows before one that is missing because of it."""
    found = sorted(error.errors(include_input=False), key=lambda details: details["type"] != "extra_forbidden")[0]
    where = parsing.path_of(found["loc"]) or "it"
    if found["type"] == "extra_forbidden":
        return f"{where} is an unknown field"
    return f"{where} is missing or of the wrong type"


def save(path: Path, config: Config) -> None:
    """Replace the file; it may hold tokens, so only its owner reads it.

    Raises:
        Misconfigured: it cannot be written.
    """
    text: str = yaml.safe_dump(config.model_dump(by_alias=True, exclude_defaults=True, mode="json"), sort_keys=True)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, text.encode())
    except OSError as error:
        raise Misconfigured(f"cannot write {path}: {error.strerror}") from None
