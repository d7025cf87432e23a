"""Identifies callers of the API and checks what they may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace

from fastapi import Request

from kuma.api.http import hosts
from kuma.base.errors import AccessDenied, Unauthenticated
from kuma.base.values import addresses
from kuma.resources.kinds import Kind
from kuma.transparent_proxy.redirection import SOURCES

ADMIN_USER, ADMIN_GROUP = "mesh-system:admin", "mesh-system:admin"
AUTHENTICATED, UNAUTHENTICATED = "mesh-system:authenticated", "mesh-system:unauthenticated"

VerifyToken = Callable[[str], Awaitable[tuple[str, tuple[str, ...]]]]
"""A user token -> the name and groups that it vouches for. Raises `Unauthenticated`."""

LOCAL_USER = "local_user"
"""In the state of a request: the id of the user of this machine whose process sends it; None if it is not known."""
_FORWARDING = (
    "forwarded", "via", "x-forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip",
    "x-original-", "x-envoy-", "cf-", "cdn-", "fastly-", "x-azure-", "x-amzn-", "x-arr-", "x-appengine-",
    "client-ip", "proxy-client-ip", "wl-proxy-", "x-originating-", "x-remote-", "x-proxyuser-", "x-host",
)  # fmt: skip
"""Beginnings of the headers that proxies add. An Envoy of the mesh on this machine is not the person at it."""
_OF_PROXIES = frozenset(SOURCES.values())
"""Addresses of this machine from which transparent proxies pass on what others send, in the clear, too."""
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Caller:
    """A user and its groups."""

    name: str
    groups: tuple[str, ...]
    hint: str = field(default="", compare=False)
    """Ends what this caller is told when refused: why nobody else is seen in it."""

    def __str__(self) -> str:
        return f"{self.name}/{','.join(self.groups)}"


ADMIN = Caller(ADMIN_USER, (ADMIN_GROUP, AUTHENTICATED))
ANONYMOUS = Caller("mesh-system:anonymous", (UNAUTHENTICATED,))
_NO_LOCAL_ADMIN = (
    "; on this machine root, the control plane's own user and those named in "
    "KUMA_API_SERVER_AUTHN_LOCALHOST_ADMIN_USERS or ..._GROUPS need no token: call as one of them, or send the token "
    "of a user (kumactl config control-planes add --auth-type=tokens --auth-conf token=...)"
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Users and groups who may do something: any of these users, and every member of any of these groups."""

    users: frozenset[str] = frozenset({ADMIN_USER})
    groups: frozenset[str] = frozenset({ADMIN_GROUP})

    @classmethod
    def of(cls, users: Iterable[str], groups: Iterable[str]) -> Grant:
        return cls(frozenset(users), frozenset(groups))

    def covers(self, caller: Caller) -> bool:
        return caller.name in self.users or not self.groups.isdisjoint(caller.groups)


MEMBERS = Grant(groups=frozenset({ADMIN_GROUP, AUTHENTICATED}))


@dataclass(frozen=True, slots=True)
class Access:
    """Access rules. Whatever is not named here is allowed to every known caller, and to no anonymous one."""

    admin_resources: Grant = field(default_factory=Grant)
    generate_dp_token: Grant = field(default_factory=Grant)
    generate_user_token: Grant = field(default_factory=Grant)
    generate_zone_token: Grant = field(default_factory=Grant)
    control_plane_metadata: Grant = field(default_factory=Grant)
    get_config_dump: Grant = MEMBERS
    view_stats: Grant = MEMBERS
    view_clusters: Grant = MEMBERS
    anonymous_reads: bool = False

    def check(self, caller: Caller, kind: Kind, method: str) -> None:
        """Checks that `caller` may do `method` to resources of `kind`.

        Raises:
            AccessDenied: not.
        """
        if kind.admin_only or (kind.admin_writes and method not in _SAFE):
            allowed = self.admin_resources.covers(caller)
        else:
            allowed = AUTHENTICATED in caller.groups or (self.anonymous_reads and method in _SAFE)
        if not allowed:
            raise AccessDenied(f'user "{caller}" cannot access the resource of type "{kind.name}"{caller.hint}')


def check_grant(caller: Caller, grant: Grant, what: str) -> None:
    """Checks that `caller` has been granted something; `what` names it in the error.

    Raises:
        AccessDenied: not.
    """
    if not grant.covers(caller):
        raise AccessDenied(f'user "{caller}" cannot access {what}{caller.hint}')


@dataclass(frozen=True, slots=True)
class LocalAdmins:
    """Users of this machine who are the administrator without a token."""

    users: frozenset[int] = frozenset()
    """Their ids."""
    everybody: bool = False

    def __bool__(self) -> bool:
        return self.everybody or bool(self.users)

    def include(self, user: int | None) -> bool:
        """Tells whether a user is among them; one that is not known is not."""
        return self.everybody or user in self.users


def local_user(request: Request) -> int | None:
    """Returns the id of the user of this machine whose process sends a request; None if that is not known."""
    found: int | None = getattr(request.state, LOCAL_USER, None)
    return found


async def identify(request: Request, verify: VerifyToken, local_admins: LocalAdmins) -> Caller:
    """Identifies the sender of a request by its token, or else, as the administrator if a local admin runs it.

    Not one that a proxy speaks for, and not a web page: a browser on this machine runs anybody's scripts (DNS
    rebinding, cross-site requests).

    Raises:
        Unauthenticated: a credential is given and does not hold.
        AccessDenied: a web page of another site is asking.
    """
    credential = request.headers.get("authorization")
    if credential is not None:
        scheme, _, token = credential.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("only bearer tokens are understood; make one with `kumactl generate user-token`")
        name, groups = await verify(token.strip())
        return Caller(name, (*groups, AUTHENTICATED))
    if not local_admins or not _from_this_machine(request):
        return ANONYMOUS
    if not local_admins.include(local_user(request)):
        return replace(ANONYMOUS, hint=_NO_LOCAL_ADMIN)
    origin = request.headers.get("origin")
    foreign = origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host', '')}"
    if foreign or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise AccessDenied("requests from web pages of other sites are refused")
    return ADMIN


def _from_this_machine(request: Request) -> bool:
    if request.client is None or any(name.replace("_", "-").startswith(_FORWARDING) for name in request.headers):
        return False
    if addresses.written(request.client.host) in _OF_PROXIES:
        return False
    host = hosts.host_of(request) or ""
    return addresses.is_loopback(request.client.host) and (host == "localhost" or addresses.is_loopback(host))
