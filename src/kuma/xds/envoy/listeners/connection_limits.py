"""Bounds how long a connection may go on, so that none outlives the certificates it was opened with for long. Pure.

A certificate is checked when a connection is opened, and Envoy has no timer that goes by what it says. But whoever
opens a connection has a leaf that is not due for rotation yet, so a known part of its lifetime is left: a connection
that is ended after that part ends in time, whenever it was opened.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from kuma.pki.leaf_rotation import REPLACED_AT

STANDARD_LINGER = timedelta(seconds=30)
UNIDENTIFIED = timedelta(minutes=10)
"""How long requests are taken on a connection over HTTP of a caller in plaintext: it is reported when it ends."""
_DRAIN = timedelta(seconds=5)
"""How long Envoy takes to end an HTTP connection for which it is time."""


class Limits(NamedTuple):
    """The longest time for what a caller may have open; None without a limit.

    Of an HTTP connection no more requests are taken after `http_connection`, and Envoy says so in time; those that are
    under way may last for `http_stream`. Together, and with what Envoy needs for that, they are no more than `tcp`.
    """

    tcp: timedelta | None = None
    http_connection: timedelta | None = None
    http_stream: timedelta | None = None

    @property
    def unidentified(self) -> Limits:
        """Returns the limits of callers over HTTP that show no certificate, and are to be seen in time."""
        return Limits(http_connection=min(UNIDENTIFIED, self.http_connection or UNIDENTIFIED))


NONE = Limits()


def of(leaf_lifetime: timedelta, linger: timedelta = STANDARD_LINGER) -> Limits:
    """Returns the limits where leaves live for so long.

    `linger` is how long a connection may outlive the certificates it was opened with.
    """
    longest = leaf_lifetime * round(1 - REPLACED_AT, 6) + linger
    usable = max(longest - _DRAIN, longest / 2)
    return Limits(longest, usable / 4, usable * 3 / 4)
