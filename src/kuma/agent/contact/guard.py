"""Ends an Envoy that has had no stream with the control plane for too long, if its kuma-dp has not done so.

A program of its own, because kuma-dp may be stopped alone (SIGSTOP), and small: it is run by its path, and imports
nothing of ours. It ends with kuma-dp, and with Envoy.

Usage: guard.py HOST PORT LIMIT DRAIN, where LIMIT is after how many seconds without a stream it acts, and DRAIN how
many it leaves to what is open then. The number of Envoy's process comes by the standard input: the guard is there
before Envoy is. The exit status is `OUT_OF_CONTACT` if it has ended Envoy, and 0 otherwise.
"""

import contextlib
import http.client
import json
import os
import select
import signal
import sys
import time

OUT_OF_CONTACT = 75
"""Exit status, EX_TEMPFAIL of sysexits."""
STREAM = "/stats?format=json&filter=^(control_plane%5C.connected_state|cluster%5C.ads_cluster%5C.upstream_rq_active)$"
"""What Envoy knows of its stream: see `stands`."""
_STOPPED = 6.0
"""Seconds from one look to the end of the next, at which this process is taken to have been stopped meanwhile."""
_CONNECTING = 15.0
"""Seconds in which an Envoy that begins, or was stopped, too, finds a control plane that is there."""
_POLL, _PATIENCE, _TIMEOUT = 1.0, 5.0, 2.0
_TOLD = b"kuma-dp is stopped, and the control plane out of contact for too long: its Envoy is ended\n"
_DRAINING = ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit")


class Contact:
    """Decides from looks at Envoy's stream whether it has been without the control plane for too long.

    Only a stream that stands at two looks is contact: one that the control plane refuses stands for a moment, too. If
    whoever looks was stopped (SIGSTOP, a frozen container), Envoy may have been, too: what it lost meanwhile it has a
    moment to get again. Times are seconds of a monotonic clock.
    """

    def __init__(self, limit: float, now: float) -> None:
        self._limit = limit
        self._looked, self._stood = now, False
        self._until = now + max(limit, _CONNECTING)  # it serves nothing before its first stream

    def look(self, stands: bool, now: float) -> None:
        """Takes in what was seen."""
        if stands and self._stood:
            self._until = now + self._limit
        elif now - self._looked > _STOPPED:
            self._until = max(self._until, now + min(self._limit, _CONNECTING))
        self._looked, self._stood = now, stands

    @property
    def is_lost(self) -> bool:
        """Tells whether Envoy is to end."""
        return self._looked >= self._until

    @property
    def pause(self) -> float:
        """Returns after how many seconds to look again."""
        return min(self._until - self._looked, self._limit / 4, _POLL)


def stands(stats: bytes) -> bool:
    """Tells from Envoy's answer to `STREAM` whether it has a stream at this moment, over a connection that stands.

    Envoy sets `connected_state` when it asks for a stream, before there is a connection; `upstream_rq_active` counts
    what a connection has taken.
    """
    try:
        found = json.loads(stats)["stats"]
        return len(found) == 2 and all(stat["value"] > 0 for stat in found)
    except (ValueError, LookupError, TypeError):
        return False


def main() -> int:
    """Guards an Envoy."""
    host, port = sys.argv[1], int(sys.argv[2])
    limit, drain = float(sys.argv[3]), float(sys.argv[4])
    told = sys.stdin.readline()
    if not told:
        return 0  # kuma-dp has begun no Envoy
    try:
        process = os.pidfd_open(int(told))
    except ProcessLookupError:
        return 0
    contact = Contact(limit, time.monotonic())
    while not contact.is_lost:
        if _has_ended(process, contact.pause):
            return 0
        contact.look(stands(_ask(host, port, "GET", STREAM)), time.monotonic())
    if select.select([], [sys.stderr], [], 0)[1]:  # a pipe that nobody reads keeps nothing waiting
        os.write(sys.stderr.fileno(), _TOLD)
    for path in _DRAINING:
        _ask(host, port, "POST", path)
    for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, _PATIENCE)):
        if _has_ended(process, drain):
            break
        signal.pidfd_send_signal(process, number)
        drain = patience
    return OUT_OF_CONTACT


def _has_ended(process: int, seconds: float) -> bool:
    """Waits for so long at most."""
    return bool(select.select([process], [], [], seconds)[0])


def _ask(host: str, port: int, method: str, path: str) -> bytes:
    """Returns the answer of Envoy's administration; nothing if there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request(method, path)
        return connection.getresponse().read()
    return b""


if __name__ == "__main__":
    sys.exit(main())
