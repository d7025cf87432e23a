"""Finds the user whose process is at the other end of a TCP connection within this machine.

The kernel knows: a socket belongs to the user that made it. It is asked over `sock_diag(7)`, which finds one socket by
its addresses in microseconds, or where that is not offered by way of `/proc/net/tcp`, which lists them all. Of a socket
that its process has closed the kernel says that it is root's; such a socket has no inode any more, and is nobody's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

from kuma.base.values import addresses
from kuma.base.values.addresses import Address

_ESTABLISHED, _FIN_WAIT_1, _FIN_WAIT_2, _CLOSE_WAIT = 1, 4, 5, 8
"""States of TCP connections, as in Linux's `net/tcp_states.h`."""
_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_REQUEST_TYPE = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST = 1  # NLM_F_REQUEST
_HEADER = struct.Struct("=IHHII")
"""Of a netlink message: length, type, flags, sequence number, port."""
_QUESTION = struct.Struct("=BBBBI")
"""Begins `inet_diag_req_v2`: family, protocol, extensions, padding, states."""
_PLACE = struct.Struct("!HH16s16s")
"""Begins `inet_diag_sockid`: ports and addresses, source before destination."""
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
"""The rest of it: interface and cookie."""
_ANSWER = struct.Struct("=BBBB48sIIIII")
"""`inet_diag_msg`: family, state, timer, retransmissions, socket, expiry, queues, user, inode."""
_OVERFLOW = 65534
_WHOLE_SYSTEM = ["0", "0", "4294967295"]
"""The mapping of users of a process that is in no user namespace of its own."""


class Place(NamedTuple):
    """One end of a connection."""

    address: Address
    port: int


class Found(NamedTuple):
    """Description of a socket by the kernel."""

    state: int
    user: int
    inode: int


Lookup = Callable[[Place, Place], Found | None]
"""The socket with its own and its other end, or None if there is none. Raises `OSError` if it cannot be asked for."""


@dataclass(frozen=True, slots=True)
class PeerUsers:
    """Tells the user at the other end of connections, in the way that this system offers."""

    lookup: Lookup
    overflow_uid: int | None = None
    """The id that stands for all users who have none of their own here, if there may be such."""

    @classmethod
    def of_this_system(cls) -> PeerUsers | None:
        """Returns the first way by which this process finds itself; None if there is none."""
        overflow_uid = _overflow_uid()
        ways = (cls(lookup, overflow_uid) for lookup in (_by_netlink, _by_proc))
        return next((found for found in ways if found._finds_us()), None)

    async def user(self, accepted: socket.socket) -> int | None:
        """Returns the id of the user who has made the connection that was accepted; None if that is not certain."""
        if self.lookup is _by_proc:
            return await asyncio.to_thread(self._user, accepted)  # takes milliseconds
        return self._user(accepted)

    def _user(self, accepted: socket.socket) -> int | None:
        """Fails closed: the other end has to be there before and after its user is asked for.

        While our end is connected, nobody else can have a connection with the very same addresses and ports.
        """
        try:
            found = self.lookup(_place(accepted.getpeername()), _place(accepted.getsockname()))
            state = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except (OSError, ValueError):
            return None
        is_whole = (
            found is not None
            and found.inode != 0
            and found.state in (_ESTABLISHED, _FIN_WAIT_1, _FIN_WAIT_2)
            and found.user != self.overflow_uid
            and state in (_ESTABLISHED, _CLOSE_WAIT)
        )
        return found.user if found is not None and is_whole else None

    def _finds_us(self) -> bool:
        try:
            with (
                socket.create_server(("127.0.0.1", 0)) as listener,
                socket.create_connection(listener.getsockname()) as client,
                listener.accept()[0] as accepted,
            ):
                return self._user(accepted) == _owner(client)
        except OSError:
            return False


def _owner(sock: socket.socket) -> int:
    return Path(f"/proc/self/fd/{sock.fileno()}").stat().st_uid


def _overflow_uid() -> int | None:
    """Returns the one id of all users outside a user namespace (see `user_namespaces(7)`); None if this is none."""
    try:
        if Path("/proc/self/uid_map").read_text().split() == _WHOLE_SYSTEM:
            return None
        return int(Path("/proc/sys/kernel/overflowuid").read_text())
    except OSError:
        return _OVERFLOW


def _place(name: tuple[str, int]) -> Place:
    """Returns an end as `getpeername` and `getsockname` tell it, IPv4 if it is one that is written as IPv6."""
    address = addresses.parse(name[0])
    if address is None:
        raise ValueError(name[0])
    return Place(address, name[1])


def _by_netlink(own: Place, other: Place) -> Found | None:
    family = socket.AF_INET6 if isinstance(own.address, IPv6Address) else socket.AF_INET
    place = _PLACE.pack(own.port, other.port, own.address.packed, other.address.packed)
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + place + _ANY
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(1)
        kernel.sendto(_HEADER.pack(_HEADER.size + len(question), _REQUEST_TYPE, _REQUEST, 0, 0) + question, (0, 0))
        answer = kernel.recv(8192)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _REQUEST_TYPE:  # an error: there is no such socket, or no such question
        return None
    _, state, _, _, found, _, _, _, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    in_ipv6 = _PLACE.pack(own.port, other.port, _in_ipv6(own.address), _in_ipv6(other.address))
    # A listener at the same port is what the kernel finds next.
    return Found(state, user, inode) if found.startswith((place, in_ipv6)) else None


def _by_proc(own: Place, other: Place) -> Found | None:
    """Looks twice: a socket that still is somebody's when its inode is read was so when its user was."""
    first, second = _listed(own, other), _listed(own, other)
    return second if first and second and first[1:] == second[1:] else None


def _listed(own: Place, other: Place) -> Found | None:
    wanted = {f"{a} {b}" for a, b in zip(_forms(own), _forms(other), strict=False)}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if f"{fields[1]} {fields[2]}" in wanted:
                return Found(int(fields[3], 16), int(fields[7]), int(fields[9]))
    return None


def _forms(place: Place) -> Iterator[str]:
    """Writes an end as the kernel lists it: words of the machine's byte order; IPv4 may be in an IPv6 socket."""
    for packed in (place.address.packed, _in_ipv6(place.address)):
        yield f"{_words(packed)}:{place.port:04X}"


def _in_ipv6(address: Address) -> bytes:
    return address.packed.rjust(6, b"\xff").rjust(16, b"\0")


def _words(packed: bytes) -> str:
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))
