"""Context of the API's routes: the parts of the control plane that they use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from fastapi import Request

from kuma.api.http import access_control
from kuma.api.http.access_control import Access, Caller, Grant, LocalAdmins, VerifyToken
from kuma.api.http.bodies import BodyTooLarge, BodyTooSlow, parse_object, read_body
from kuma.api.http.costly import CostlyRequests
from kuma.api.http.errors import Problem
from kuma.api.http.request_limits import RequestLimits
from kuma.base.audit import Audit, NoAudit
from kuma.base.clock import Clock, SystemClock
from kuma.base.errors import InvalidResource, NotFound
from kuma.coordination.coordination import Instance
from kuma.foresight.course import DEFAULT_PACE, Pace
from kuma.pki.validity import Validity
from kuma.resources import kinds
from kuma.resources.kinds import Kind
from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.resources.view import MeshView
from kuma.store.manager import ResourceManager

IssueUserToken = Callable[[str, Sequence[str], timedelta], Awaitable[str]]
"""Name, groups and lifetime of a user token -> the token."""
IssueToken = Callable[[str, str, Mapping[str, Sequence[str]], str, timedelta], Awaitable[str]]
"""Mesh, name, tags, proxy type and lifetime of a dataplane token -> the token."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that a connected proxy uses now."""

    mesh: str
    dataplane: str
    serial: str
    spiffe_ids: tuple[str, ...]
    authority: str
    not_before: datetime
    not_after: datetime
    reason: str


async def no_rekey() -> None:
    """Refuses to seal anew what the store has not sealed."""
    raise Problem(501, "Could not seal Secrets anew", "this store is not sealed by the control plane")


async def _no_certificates() -> Sequence[Certificate]:
    return ()


async def _no_configuration(mesh: str, name: str) -> Mapping[str, object]:
    raise NotFound(f"no proxy is connected for {mesh}.{name}")


class Envoys(Protocol):
    """The Envoys that are connected. Raises `NotFound` for one that is not, another error if it does not answer."""

    async def config_dump(self, mesh: str, name: str, query: Mapping[str, str]) -> bytes: ...

    async def read(self, mesh: str, name: str, path: str, query: Mapping[str, str]) -> bytes: ...


class _NoEnvoys:
    async def config_dump(self, mesh: str, name: str, query: Mapping[str, str]) -> bytes:
        raise NotFound(f"no proxy is connected for {mesh}.{name}")

    async def read(self, mesh: str, name: str, path: str, query: Mapping[str, str]) -> bytes:
        raise NotFound(f"no proxy is connected for {mesh}.{name}")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Settings of the API."""

    local_admins: LocalAdmins
    access: Access = field(default_factory=Access)
    max_body: int = 1 << 20
    read_only: bool = False
    """Whether resources are written by other means: those of Kubernetes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Issues tokens, and verifies those of users."""

    issue: IssueToken
    issue_user: IssueUserToken
    verify: VerifyToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The proxies that are connected: their certificates, what they should run, and their Envoys."""

    certificates: Callable[[], Awaitable[Sequence[Certificate]]] = _no_certificates
    wanted_configuration: Callable[[str, str], Awaitable[Mapping[str, object]]] = _no_configuration
    envoys: Envoys = field(default_factory=_NoEnvoys)


async def _nothing_observed(_: str) -> Mapping[str, ObservedTrafficSpec]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """View of meshes: their resources, and what proxies have reported of their callers, by Dataplane."""

    meshes: Callable[[], Sequence[str]] = tuple
    view: Callable[[str], MeshView] = MeshView
    pace: Pace = DEFAULT_PACE
    """How long steps of staged changes wait."""
    traffic: Callable[[str], Awaitable[Mapping[str, ObservedTrafficSpec]]] = _nothing_observed


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiContext:
    """The parts of the control plane that the API shows."""

    manager: ResourceManager
    instance: str
    instances: Callable[[], Sequence[Instance]] = tuple
    """The control planes over this store that are there."""
    settings: ApiSettings
    tokens: Tokens
    connected: Connected = field(default_factory=Connected)
    observation: Observation = field(default_factory=Observation)
    clock: Clock = field(default_factory=SystemClock)
    limits: RequestLimits = field(default_factory=RequestLimits)
    costly: CostlyRequests = field(default_factory=CostlyRequests)
    configuration: Mapping[str, object] = field(default_factory=dict)
    server_certificate: Callable[[], Validity | None] = lambda: None
    """When the certificate ends that the servers show now."""
    rekey: Callable[[], Awaitable[None]] = no_rekey
    audit: Audit = field(default_factory=NoAudit)

    def caller(self, request: Request) -> Caller:
        """Returns the sender of this request, as `authentication` has identified it."""
        caller: Caller = request.state.caller
        return caller

    def check(self, request: Request, kind: Kind) -> None:
        """Checks that the sender may do this to resources of `kind`; raises if not.

        Raises:
            AccessDenied: not.
        """
        self.settings.access.check(self.caller(request), kind, request.method)

    def check_grant(self, request: Request, grant: Grant, what: str) -> None:
        """Checks that the sender has been granted something; see `access_control.check_grant`."""
        access_control.check_grant(self.caller(request), grant, what)

    async def body(self, request: Request) -> dict[str, object]:
        """The JSON object that was sent.

        Raises:
            Problem: 413, 415 or 400.
        """
        content_type = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
        if content_type != "application/json":
            raise Problem(415, "Unsupported Media Type", f"send application/json, not {content_type}")
        try:
            return parse_object(await read_body(request, self.settings.max_body))
        except BodyTooLarge:
            detail = f"the body is longer than {self.settings.max_body} bytes"
            raise Problem(413, "Request Entity Too Large", detail) from None
        except BodyTooSlow:
            raise Problem(408, "Request Timeout", "the body did not come in time") from None
        except InvalidResource as error:
            raise Problem(400, "Bad Request", str(error)) from None

    async def check_mesh(self, mesh: str) -> None:
        """Checks that the mesh in a path exists.

        Raises:
            Problem: 404.
        """
        try:
            await self.manager.get(kinds.MESH.key(mesh))
        except NotFound:
            detail = f'mesh "{mesh[:100]}" does not exist; create it first: {{type: Mesh, name: {mesh[:100]}}}'
            raise Problem(404, "Failed to retrieve Mesh", detail) from None
