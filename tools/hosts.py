"""Hosts of their own on this machine: network namespaces on one bridge, which go with the process that made them.

A host is a process that does nothing, in a namespace that lasts as long as something runs there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.processes import PATIENCE
from tools import packages

_READS_ALL = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
"""Another user may run what is checked out, wherever that is."""


_NEEDED = {"curl", "iproute2", "nftables"}


class Host:
    """One host. Commands run in it; files, users and processes are this machine's."""

    def __init__(self, holder: subprocess.Popen[bytes], address: str = "", address6: str = "") -> None:
        self.holder, self.address, self.address6 = holder, address, address6

    def command(self, *argv: str | os.PathLike[str], uid: int = 0) -> list[str]:
        """The command that runs another one in this host, as this user."""
        user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *_READS_ALL] if uid else []
        spaces = [f"--{kind}=/proc/{self.holder.pid}/ns/{name}" for kind, name in (("net", "net"), ("mount", "mnt"))]
        return ["nsenter", *spaces, *user, *(os.fspath(word) for word in argv)]

    def run(self, *argv: str | os.PathLike[str], uid: int = 0, check: bool = True, **how: Any) -> str:
        """Run a command in it, and return what it prints, errors too."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self.command(*argv, uid=uid), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE, check=False, **how,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout
        return done.stdout


def _hold(names: Path | None) -> subprocess.Popen[bytes]:
    """Start the process of a host: it ends when this one does, whatever happens. `names` is its /etc/hosts."""
    mounting = f"mount --bind {names} /etc/hosts && " if names else ""
    return subprocess.Popen(
        [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            f"{mounting}ip link set lo up && echo && exec sleep inf",
        ],
        stdout=subprocess.PIPE,
    )


@contextlib.contextmanager
def host(address: str = "", address6: str = "", names: Path | None = None) -> Iterator[Host]:
    """A host until the end of the block; it has no link yet. `names` is a file in the place of its /etc/hosts."""
    missing = _NEEDED.intersection(packages.missing())
    assert not missing, f"{sorted(missing)} are missing: make packages"
    holder = _hold(names)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n", "no network namespace: tests of hosts run as root"
        yield Host(holder, address, address6)
    finally:
        holder.kill()
        holder.communicate()


@contextlib.contextmanager
def network(names: Sequence[str], prefix: str = "10.99.0", prefix6: str = "fd99::") -> Iterator[dict[str, Host]]:
    """Hosts of these names on one bridge, which is in a host of its own; addresses count from 1, in this order."""
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(host())
        switch.run("ip", "link", "add", "br0", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        found = {}
        for number, name in enumerate(names, 1):
            made = stack.enter_context(host(f"{prefix}.{number}", f"{prefix6}{number}"))
            plug(made, switch, number)
            found[name] = made
        yield found


def plug(made: Host, switch: Host, number: int) -> None:
    """Connect a host to the bridge of a switch, by its addresses."""
    link = f"port{number}"
    switch.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(made.holder.pid))
    switch.run("ip", "link", "set", link, "master", "br0", "up")
    made.run("ip", "address", "add", f"{made.address}/24", "dev", "eth0")
    if made.address6:
        made.run("ip", "address", "add", f"{made.address6}/64", "dev", "eth0", "nodad")
    made.run("ip", "link", "set", "eth0", "up")
    made.run("ip", "route", "add", "default", "dev", "eth0")


def join(switch: Host, address: str) -> None:
    """Connect this machine itself to the bridge of a switch; the link goes with the switch."""
    link = f"kuma{switch.holder.pid}"[:15]
    switch.run("ip", "link", "add", "here", "type", "veth", "peer", "name", link, "netns", str(os.getpid()))
    switch.run("ip", "link", "set", "here", "master", "br0", "up")
    for command in (("address", "add", f"{address}/24", "dev", link), ("link", "set", link, "up")):
        subprocess.run(("ip", *command), check=True, timeout=PATIENCE)
