"""Ends an Envoy that has had no stream with the control plane for too long, if its kuma-dp has not done so.

A program of its own, because kuma-dp may be stopped alone (SIGSTOP), and small: it is run by its path, and imports
nothing of ours. It ends with kuma-dp, and with Envoy.

Usage: guard.py PID HOST PORT LIMIT DRAIN, where LIMIT is after how many seconds without a stream it acts, and DRAIN how
many it leaves to what is open then. The exit status is `OUT_OF_CONTACT` if it has ended Envoy, and 0 otherwise.
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
STOPPED = 6.0
"""Seconds from one look to the end of the next, at which this process is taken to have been stopped meanwhile."""
RECONNECTED = 15.0
"""Seconds in which an Envoy that was stopped, too, finds a control plane that is there."""
_POLL, _PATIENCE, _TIMEOUT = 1.0, 5.0, 2.0
_CONNECTED = "/stats?format=json&filter=^control_plane%5C.connected_state$"
_DRAINING = ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit")


def main() -> int:
    """Guards the Envoy that the arguments name."""
    process = os.pidfd_open(int(sys.argv[1]))
    host, port = sys.argv[2], int(sys.argv[3])
    limit, drain = float(sys.argv[4]), float(sys.argv[5])
    looked = time.monotonic()
    until = looked + limit
    while looked < until:
        if _has_ended(process, _POLL):
            return 0
        connected = _is_in_contact(host, port)
        before, looked = looked, time.monotonic()
        if connected:
            until = looked + limit
        elif looked - before > STOPPED:
            until = max(until, looked + min(limit, RECONNECTED))
    sys.stderr.write("kuma-dp is stopped, and the control plane out of contact for too long: its Envoy is ended\n")
    sys.stderr.flush()
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


def _is_in_contact(host: str, port: int) -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        stats = json.loads(_ask(host, port, "GET", _CONNECTED)).get("stats", ())
        return any(stat.get("value") == 1 for stat in stats)
    return False


def _ask(host: str, port: int, method: str, path: str) -> bytes:
    """Returns the answer of Envoy's administration; nothing if there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request(method, path)
        return connection.getresponse().read()
    return b""


if __name__ == "__main__":
    sys.exit(main())
