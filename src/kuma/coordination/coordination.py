"""What the parts of a control plane need to know of others, and how it is when there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kuma.resources.models.coordination import InstanceSpec, RolloutProgressSpec
from kuma.resources.resource import Key
from kuma.store.protocol import Expect


@dataclass(frozen=True, slots=True)
class Instance:
    """A control plane that is there."""

    name: str
    spec: InstanceSpec
    leads: bool
    received: datetime
    """When its last word came, by our clock: what `spec.written` differs by is the difference of the clocks."""


class Coordination(Protocol):
    """Other control planes over the same store."""

    @property
    def own(self) -> str:
        """The name of this control plane among them."""
        ...

    @property
    def leads(self) -> bool:
        """Tells whether this control plane does what only one may do. `guard` makes sure of it."""
        ...

    async def known(self) -> None:
        """Return once it is known who is there."""
        ...

    def silent_for(self) -> float:
        """Seconds since this control plane has last told the others that it is there."""
        ...

    def guard(self) -> tuple[Expect, ...]:
        """Returns what a transaction expects that only the leader may make.

        Whoever leads no more commits nothing, nor does a leader that has not heard what others have said since.
        """
        ...

    def instances(self) -> Sequence[Instance]:
        """All control planes that are there."""
        ...

    def absence(self, instance: str) -> tuple[Expect, ...] | None:
        """Returns what a transaction expects that takes an instance to be gone for good; None if it may not be.

        An instance that was taken to be gone, and comes back, notices this: see `on_return`.
        """
        ...

    def others(self) -> frozenset[str]:
        """The names of the others that are there."""
        ...

    def has(self, dataplane: Key) -> bool:
        """Tells whether the proxy of a Dataplane is connected to one of the others."""
        ...

    def progress(self) -> Mapping[tuple[str, str], RolloutProgressSpec]:
        """Returns what the others that are there say of their proxies, by instance and mesh."""
        ...

    def on_progress(self, listener: Callable[[str, str], None]) -> None:
        """Call `listener` with an instance and a mesh of which it says something else now, or nothing any more."""
        ...

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when another control plane has left, or this one has begun to lead."""
        ...

    def on_return(self, listener: Callable[[], None]) -> None:
        """Call `listener` when this control plane was taken to be gone: others have cleared up what it had said."""
        ...


class Alone:
    """One control plane, which has its store to itself."""

    own = ""
    leads = True

    async def known(self) -> None:
        """There is nobody else."""

    def silent_for(self) -> float:
        return 0

    def guard(self) -> tuple[Expect, ...]:
        return ()

    def instances(self) -> Sequence[Instance]:
        return ()

    def absence(self, instance: str) -> tuple[Expect, ...] | None:
        return ()

    def others(self) -> frozenset[str]:
        return frozenset()

    def has(self, dataplane: Key) -> bool:
        return False

    def progress(self) -> Mapping[tuple[str, str], RolloutProgressSpec]:
        return {}

    def on_progress(self, listener: Callable[[str, str], None]) -> None:
        """There will be none."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """There will be none."""

    def on_return(self, listener: Callable[[], None]) -> None:
        """There is nobody who could take it to be gone."""
