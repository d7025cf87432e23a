"""The next safe step of a mesh's mutual TLS. Pure: what is declared, where the mesh stands, and whether it has settled.

Two neighbouring positions always understand each other: whichever of the two any two proxies run, they can talk. A step
is taken only when all proxies run the present position, so no more than two positions are ever in use at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from kuma.resources.models.mesh_transition import Level, Position


@dataclass(frozen=True, slots=True)
class Declared:
    """The declared state: a level, the enabled authority's fingerprint, and the roots of all listed authorities."""

    level: Level = Level.PLAIN
    authority: str = ""
    roots: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Tells whether mutual TLS is asked for, and its authority is not there."""
        return self.level is not Level.PLAIN and not self.authority

    def as_position(self, before: Position) -> Position:
        """Returns the position at which nothing is left to do, reached from `before` at once."""
        epoch = before.epoch + _retires(before, self)
        roots = _in_known_order(self.roots, before.roots)
        return Position(level=self.level, authority=self.authority, roots=roots, epoch=epoch)

    def is_reached_at(self, position: Position) -> bool:
        """Tells whether nothing is left to do: the epoch does not matter, nor does the order of the roots."""
        return position == self.as_position(position)


def next_position(position: Position, declared: Declared, *, settled: bool, alone: bool = False) -> Position:
    """Returns the next position; `position` itself if there is nothing to do, or something to wait for.

    `settled`: all proxies run `position`. `alone`: there are none, so there is nobody to be careful of.
    """
    if declared.waits:  # nobody to issue: stay; but who comes to a mesh that has not begun finds no plaintext
        return declared.as_position(position) if alone and position == Position() else position
    if alone or _is_closed(position):
        return declared.as_position(position)
    if declared.level is Level.PLAIN:
        return _lowered(position) if settled else position
    if position.level is Level.PLAIN:
        return Position(level=Level.ACCEPTING, authority=declared.authority, roots=declared.roots)
    prepared = _union(position.roots, declared.roots)
    if prepared != position.roots:  # to trust more hurts nobody: no need to wait
        return position.model_copy(update={"roots": prepared, "draining": False})
    if not settled:
        return position
    if position.authority != declared.authority:
        return position.model_copy(update={"authority": declared.authority})
    if position.level != declared.level:
        step = 1 if declared.level > position.level else -1
        return position.model_copy(update={"level": Level(position.level + step)})
    if _retires(position, declared) and not position.draining:
        # What was opened with certificates of before ends; what is opened from now on is none of it.
        return position.model_copy(update={"epoch": position.epoch + 1, "draining": True})
    return position.model_copy(
        update={"roots": _in_known_order(declared.roots, position.roots), "draining": False},
    )


def _retires(position: Position, declared: Declared) -> bool:
    """Tells whether a root is to be trusted no more."""
    return not set(position.roots) <= set(declared.roots)


def _is_closed(position: Position) -> bool:
    """Tells whether nobody can talk to anybody for lack of certificates: no step can take anything away."""
    return position.level is not Level.PLAIN and not position.authority


def _lowered(position: Position) -> Position:
    if position.level <= Level.ACCEPTING:
        return Position()
    return position.model_copy(update={"level": Level(position.level - 1)})


def _in_known_order(roots: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """Returns `known` if these are the same roots: another order would be a step for nothing."""
    return known if set(roots) == set(known) else roots


def _union(roots: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return (*roots, *(root for root in more if root not in roots))


def step(position: Position, declared: Declared) -> str:
    """Describes for people what is being done at `position`."""
    if declared.waits:
        return "waiting: the authority is not there, or cannot be opened"
    if declared.is_reached_at(position):
        return FINISHING if declared.level is not Level.PLAIN else "turning mutual TLS off"
    if position.level is not declared.level:
        return LEVELS[position.level]
    if position.authority != declared.authority:
        return "preparing: every proxy learns to trust the new authority"
    if position.draining:
        return "draining: connections from before come to their end"
    return "activating: every proxy gets a certificate of the new authority"


FINISHING = "finishing"
LEVELS = {
    Level.PLAIN: "plaintext",
    Level.ACCEPTING: "every inbound learns to accept both plaintext and mutual TLS; callers send plaintext",
    Level.ENCRYPTING: "callers encrypt; inbounds accept both",
    Level.STRICT: "inbounds accept mutual TLS only",
}
