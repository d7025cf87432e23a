"""Looks up the users of this machine who are the administrator without a token, as the settings name them."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator

import structlog

from kuma.api.http.access_control import LocalAdmins
from kuma.app.configuration.settings import AuthnSection
from kuma.base.errors import Misconfigured
from kuma.base.system.peer_users import PeerUsers

log = structlog.get_logger(__name__)

EVERYBODY = "*"
_USERS, _GROUPS = "KUMA_API_SERVER_AUTHN_LOCALHOST_ADMIN_USERS", "KUMA_API_SERVER_AUTHN_LOCALHOST_ADMIN_GROUPS"
_ROOT = 0


def local_admins(settings: AuthnSection, peers: PeerUsers | None) -> LocalAdmins:
    """Returns the control plane's own user, root and whom the settings name. All are looked up once, here.

    Warns if `peers` cannot tell callers apart: then nobody is.

    Raises:
        Misconfigured: there is no such user or group; names the setting.
    """
    if not settings.localhost_is_admin:
        return LocalAdmins()
    if EVERYBODY in settings.localhost_admin_users:
        log.warning("everybody on this machine is the administrator", setting=f"{_USERS}={EVERYBODY}")
        return LocalAdmins(everybody=True)
    if peers is None:
        log.warning(
            "this system does not tell whose process calls from this machine, so nobody is the administrator without a "
            f"token; {_USERS}={EVERYBODY} makes everybody on this machine the administrator"
        )
    named = (*map(_user, settings.localhost_admin_users), *_members(settings.localhost_admin_groups))
    return LocalAdmins(frozenset({_ROOT, os.geteuid(), *named}))


def _user(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise Misconfigured(f'{_USERS}: there is no user "{name}" on this machine') from None


def _members(groups: tuple[str, ...]) -> Iterator[int]:
    """Returns the users who are listed in a group, or have it as their primary one."""
    for name in groups:
        try:
            group = grp.getgrgid(int(name)) if name.isdecimal() else grp.getgrnam(name)
        except KeyError:
            raise Misconfigured(f'{_GROUPS}: there is no group "{name}" on this machine') from None
        yield from (
            user.pw_uid for user in pwd.getpwall() if user.pw_gid == group.gr_gid or user.pw_name in group.gr_mem
        )
