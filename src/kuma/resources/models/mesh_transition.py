"""MeshTransition: where a mesh's mutual TLS stands on its way to what the Mesh declares."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum

from kuma.resources.models.last_contact import LastContact
from kuma.resources.resource import Model


class Level(IntEnum):
    """Levels of what proxies accept and send. Neighbours understand each other, so a mesh moves one level at a time."""

    PLAIN = 0
    """Everything is plaintext."""
    ACCEPTING = 1
    """Inbounds accept mutual TLS and plaintext; callers send plaintext."""
    ENCRYPTING = 2
    """Inbounds accept both; callers encrypt. PERMISSIVE is this."""
    STRICT = 3
    """Inbounds accept mutual TLS only; callers encrypt."""


class Position(Model):
    """The TLS state that proxies run: the furthest step towards the declared one that is safe now.

    `authority` is the fingerprint of the authority that issues; `roots` is the trust bundle, in PEM. `epoch` counts the
    times that roots have been retired: Envoy ends the connections of the epoch before. `draining` says that this has
    begun, and the roots go next.
    """

    level: Level = Level.PLAIN
    authority: str = ""
    roots: tuple[str, ...] = ()
    epoch: int = 0
    draining: bool = False


class BackendStatus(Model):
    """Status of one authority: until when it can sign, or what is wrong with it."""

    name: str
    not_after: datetime | None = None
    problem: str = ""
    renewal_overdue: bool = False
    """Of a root that the control plane should have renewed by now."""


class Awaited(Model):
    """A proxy that does not run what it should: since when, and whether it is connected at all."""

    name: str
    since: datetime | None = None
    absent: bool = False


class OutOfContact(LastContact):
    """A proxy that may go on without the control plane, and what with."""

    name: str = ""


class MeshTransitionSpec(Model):
    """A position, the way from and to, who is being waited for, and how the authorities are.

    `followers` counts the proxies that count, `acknowledged` those of them that run the position. `waiting_for` names
    some of those that hold the next step up; `unresponsive` names all that are no longer waited for. `open_until` is
    when the last connections that were opened under a retired authority end; None when there can be none.
    """

    position: Position = Position()
    origin: str = ""
    goal: str = ""
    step: str = ""
    since: datetime | None = None
    followers: int = 0
    acknowledged: int = 0
    waiting_for: tuple[Awaited, ...] = ()
    unresponsive: tuple[Awaited, ...] = ()
    open_until: datetime | None = None
    out_of_contact: tuple[OutOfContact, ...] = ()
    """The proxies, at most a hundred of them, that are away and may go on; `complete` says nothing of what they do."""
    complete: bool = False
    problem: str = ""
    backends: tuple[BackendStatus, ...] = ()
