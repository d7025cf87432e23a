"""Who calls the API, and what they may do."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import Request

from kuma.base.errors import AccessDenied, Unauthenticated
from kuma.resources.kinds import Kind

_FORWARDING = ("x-forwarded-for", "forwarded", "x-real-ip")
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Caller:
    """A user and its groups."""

    name: str
    groups: tuple[str, ...]

    @property
    def is_admin(self) -> bool:
        return "mesh-system:admin" in self.groups

    def __str__(self) -> str:
        return f"{self.name}/{','.join(self.groups)}"


ADMIN = Caller("mesh-system:admin", ("mesh-system:admin", "mesh-system:authenticated"))
ANONYMOUS = Caller("mesh-system:anonymous", ("mesh-system:unauthenticated",))


def identify(request: Request, *, localhost_is_admin: bool) -> Caller:
    """Who sends this request.

    A caller on this machine is the administrator, if that is configured. Not one that a proxy speaks for, and not a
    web page: a browser on this machine runs anybody's scripts (DNS rebinding, cross-site requests).

    Raises:
        Unauthenticated: a credential is given and does not hold.
        AccessDenied: a web page of another site is asking.
    """
    if "authorization" in request.headers:
        raise Unauthenticated("this control plane does not issue user tokens; call it from its own machine without one")
    if not localhost_is_admin or not _from_this_machine(request):
        return ANONYMOUS
    origin = request.headers.get("origin")
    foreign = origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host', '')}"
    if foreign or request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise AccessDenied("requests from web pages of other sites are refused")
    return ADMIN


def _from_this_machine(request: Request) -> bool:
    if request.client is None or any(header in request.headers for header in _FORWARDING):
        return False
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return _is_loopback(request.client.host) and (host == "localhost" or _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def check_access(caller: Caller, kind: Kind, method: str, *, anonymous_reads: bool) -> None:
    """Whether `caller` may do `method` to resources of `kind`.

    Raises:
        AccessDenied: not.
    """
    if caller.is_admin or (anonymous_reads and method in _SAFE and not kind.admin_only):
        return
    raise AccessDenied(f'user "{caller}" cannot access the resource of type "{kind.name}"')


def check_admin(caller: Caller, what: str) -> None:
    """Whether `caller` is an administrator.

    Raises:
        AccessDenied: not; `what` names what was asked for.
    """
    if not caller.is_admin:
        raise AccessDenied(f'user "{caller}" cannot access {what}')
