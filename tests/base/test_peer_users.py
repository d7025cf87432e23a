"""Whose process is at the other end of a connection: by every way that Linux has of telling it, with real sockets."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from kuma.base.system import peer_users
from kuma.base.system.peer_users import PeerUsers
from tests.fakes.patience import PATIENCE

NOBODY = 65534
WAYS = [PeerUsers(peer_users._by_netlink), PeerUsers(peer_users._by_proc)]
CALL = "exec 3<>/dev/tcp/127.0.0.1/$0; echo >&3; read -u 3"


@contextlib.contextmanager
def connected(family: int, listen: str, call: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end of a connection, and the one that was accepted."""
    with (
        socket.create_server((listen, 0), family=family, dualstack_ipv6=listen == "::") as listener,
        socket.create_connection((call, listener.getsockname()[1])) as client,
        listener.accept()[0] as accepted,
    ):
        yield client, accepted


@pytest.mark.parametrize("peers", WAYS, ids=["netlink", "proc"])
@pytest.mark.parametrize(
    ("family", "listen", "call"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
async def test_a_user_is_found_as_long_as_its_end_is_open(
    peers: PeerUsers, family: int, listen: str, call: str
) -> None:
    with connected(family, listen, call) as (client, accepted):
        assert await peers.user(accepted) == os.geteuid()
        client.shutdown(socket.SHUT_WR)  # it has said all, and waits for the answer
        assert await peers.user(accepted) == os.geteuid()
        client.close()  # the kernel would say now that it is root's
        assert await peers.user(accepted) is None


@pytest.mark.parametrize("peers", WAYS, ids=["netlink", "proc"])
async def test_one_who_listens_where_the_other_end_was_is_not_taken_for_it(peers: PeerUsers) -> None:
    while True:  # until no other program takes the port in the instant in which it is nobody's
        with connected(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (client, accepted):
            own = client.getsockname()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no goodbye
            client.close()
            try:
                other = socket.create_server(own)
            except OSError:
                continue
            with other:
                assert await peers.user(accepted) is None
            return


@pytest.mark.parametrize("peers", WAYS, ids=["netlink", "proc"])
async def test_another_user_is_told_from_us(peers: PeerUsers) -> None:
    assert os.geteuid() == 0, "only root starts processes of others"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        with subprocess.Popen(["bash", "-c", CALL, port], user=NOBODY, group=NOBODY, extra_groups=[]) as process:
            accepted, _ = listener.accept()
            with accepted:
                assert await peers.user(accepted) == NOBODY
                assert await PeerUsers(peers.lookup, overflow_uid=NOBODY).user(accepted) is None
                accepted.send(b"\n")
            assert process.wait(PATIENCE) == 0


def test_a_way_is_found_here() -> None:
    assert PeerUsers.of_this_system() == WAYS[0]
