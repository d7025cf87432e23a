"""Tells the service manager that has started this program, such as systemd, how far it is: sd_notify(3)."""

from __future__ import annotations

import os
import socket

import structlog

log = structlog.get_logger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"
SOCKET = "NOTIFY_SOCKET"
"""The environment variable that says where it listens; without it nobody does."""


def is_there() -> bool:
    """Tells whether a service manager has started this program."""
    return bool(os.environ.get(SOCKET, ""))


def tell(state: str) -> None:
    """Tells it a state. That it cannot be told is logged, and stops nothing."""
    where = os.environ.get(SOCKET, "")
    if not where:
        return
    address = f"\0{where[1:]}" if where.startswith("@") else where  # of the abstract namespace: unix(7)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.connect(address)
            told.send(state.encode())
    except OSError as error:
        log.warning("the service manager cannot be told", state=state, reason=error.strerror)
