"""Knows the proxies that are connected to other control planes, by what those say of them."""

from __future__ import annotations

from dataclasses import dataclass

from kuma.coordination.coordination import Coordination
from kuma.resources.models.mesh_transition import Position


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of one proxy: the position that it runs, or None if it is behind."""

    runs: Position | None
    unserved: bool = False


class Elsewhere:
    """Of a proxy of which several speak, the one that has begun last is right: it has moved there."""

    def __init__(self, coordination: Coordination) -> None:
        self._coordination = coordination
        self._said: dict[tuple[str, str], dict[str, Said]] = {}
        """What is said, by instance and mesh."""
        self._speaker: dict[tuple[str, str], str] = {}
        """Who is right of a proxy, by mesh and name."""

    def hear(self, instance: str, mesh: str) -> frozenset[str]:
        """Takes in what an instance says of a mesh now; returns of which proxies it says something, or no longer."""
        before = self._said.pop((instance, mesh), {})
        spec = self._coordination.progress().get((instance, mesh))
        if spec is None:
            now = {}
        else:
            now = {name: Said(spec.position) for name in spec.running}
            now |= {one.name: Said(None, one.unserved) for one in spec.behind}
            self._said[instance, mesh] = now
        for name in now.keys() - before.keys():
            self._speaker[mesh, name] = instance
        for name in before.keys() - now.keys():
            self._give_up(instance, mesh, name)
        return frozenset(before.keys() | now.keys())

    def _give_up(self, instance: str, mesh: str, name: str) -> None:
        if self._speaker.get((mesh, name)) == instance:
            del self._speaker[mesh, name]
            for (other, of), said in self._said.items():
                if of == mesh and name in said:
                    self._speaker[mesh, name] = other

    def of(self, mesh: str, name: str) -> Said | None:
        """Returns what is said of a proxy; None if it is connected to none of the others."""
        speaker = self._speaker.get((mesh, name))
        return self._said[speaker, mesh][name] if speaker is not None else None

    def not_at(self, mesh: str, position: Position) -> frozenset[str]:
        """The instances that do not say that they are at a position."""
        said = self._coordination.progress()
        others = self._coordination.others()
        return others - {one for one in others if (spec := said.get((one, mesh))) and spec.position == position}
