"""What control planes that share a store tell each other."""

from __future__ import annotations

from datetime import datetime

from kuma.resources.models.mesh_transition import Position
from kuma.resources.resource import Model


class InstanceSpec(Model):
    """A control plane among several, as it describes itself every few seconds.

    `written` is when, by its own clock. `keys` names the key-encryption keys with which it opens what is stored.
    """

    address: str = ""
    version: str = ""
    started: datetime
    written: datetime
    proxies: int = 0
    keys: tuple[str, ...] = ()


class LeaseSpec(Model):
    """Who does what only one may do. The version of the resource is its fencing token: it changes with the holder."""

    holder: str


class Behind(Model):
    """A connected proxy that does not run the position; `unserved` if it gets no certificate."""

    name: str
    unserved: bool = False


class RolloutProgressSpec(Model):
    """How far the proxies of one instance are in one mesh: all that are connected to it."""

    mesh: str
    instance: str
    position: Position = Position()
    running: tuple[str, ...] = ()
    behind: tuple[Behind, ...] = ()
