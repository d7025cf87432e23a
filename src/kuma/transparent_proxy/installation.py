"""Puts the rules into the kernel and takes them out again, by the programs `nft` and `ip`. Needs to be root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from kuma.base.errors import Misconfigured
from kuma.transparent_proxy import ruleset
from kuma.transparent_proxy.redirection import SOURCES, IpFamilyMode, Redirection

_PACKAGES = {"nft": "nftables", "ip": "iproute2"}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where these programs are; not every user has it in the path."""
_NO_IPV6 = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
_PROXY_SOURCE = (f"{SOURCES[6]}/128", "dev", "lo")
_TIMEOUT = 30.0
Tell = Callable[[str], None]


def install(redirection: Redirection, tell: Tell) -> None:
    """Puts a redirection in the place of the one before, if any; tells each command.

    Raises:
        Misconfigured: the user is not root, a program is missing, or the kernel refuses.
    """
    _require_root()
    if redirection.mode is IpFamilyMode.DUALSTACK and _has_ipv6():
        _run(("ip", "-6", "address", "replace", *_PROXY_SOURCE), tell)
    _load(ruleset.ruleset(redirection), tell)


def uninstall(tell: Tell) -> None:
    """Takes out what `install` has put in, and nothing else; is content if there is nothing.

    Raises:
        Misconfigured: see `install`.
    """
    _require_root()
    _load(ruleset.removal(), tell)
    if _has_ipv6() and _PROXY_SOURCE[0] in _run(("ip", "-6", "address", "show", "dev", "lo"), tell):
        _run(("ip", "-6", "address", "delete", *_PROXY_SOURCE), tell)


def _require_root() -> None:
    if os.geteuid() != 0:
        raise Misconfigured("you need to have root privileges to run this command")


def _has_ipv6() -> bool:
    try:
        return _NO_IPV6.read_text().strip() == "0"
    except OSError:
        return False


def _load(script: str, tell: Tell) -> None:
    tell(script)
    _run(("nft", "-f", "-"), tell, script)


def _run(command: Sequence[str], tell: Tell, given: str = "") -> str:
    """Runs a command and returns what it prints."""
    name, path = command[0], f"{os.environ.get('PATH', '')}:{_SBIN}"
    program = shutil.which(name, path=path)
    if program is None:
        raise Misconfigured(f"the program {name} is not there: install the package {_PACKAGES[name]}")
    tell(f"# {' '.join(command)}")
    try:
        done = subprocess.run(
            [program, *command[1:]], input=given, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Misconfigured(f"{name} has not ended within {_TIMEOUT:.0f} seconds") from None
    if done.returncode != 0:
        raise Misconfigured(f"{' '.join(command)}: {_why(done.stderr)}")
    return done.stdout


def _why(said: str) -> str:
    """Returns why a program failed, in one line."""
    reason = " ".join(said.split())[:500] or "it does not say why"
    if "Operation not permitted" in reason:
        reason += "; in a container, root needs the capability NET_ADMIN, too"
    return reason
