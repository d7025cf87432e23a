"""Decides when a leaf is rotated. Pure: time and luck are arguments."""

from __future__ import annotations

from datetime import datetime

from kuma.pki.x509 import BACKDATED

REPLACED_AT = 0.8
"""Part of its lifetime after which a certificate is replaced, at the latest."""
SPREAD = 0.05
"""Part of its lifetime by which it may be replaced earlier, so that not all are at the same instant."""

OVERDUE_AT = 0.85
"""Part of its lifetime after which a certificate that is still in use tells of a fault."""


def rotation_time(issued: datetime, not_after: datetime, luck: float) -> datetime:
    """Returns when to replace a certificate issued at `issued`; `luck` is between 0 (latest) and 1 (earliest)."""
    return issued + (not_after - issued) * (REPLACED_AT - SPREAD * luck)


def is_overdue(issued: datetime, not_after: datetime, now: datetime) -> bool:
    """Tells whether a certificate should have been replaced by now, with time enough to try more than once."""
    return now >= issued + (not_after - issued) * OVERDUE_AT


def has_been_set_back(issued: datetime, now: datetime) -> bool:
    """Tells whether the clock stands before the time at which a certificate was issued, by more than clocks differ.

    Such a certificate may not hold yet anywhere, and would be used for longer than was asked for.
    """
    return now < issued - BACKDATED
