"""Status of a mesh's authorities: until when each can sign, and what operators have to know in time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from kuma.authorities.registry import STANDARD, Drivers
from kuma.pki.authority import Authority
from kuma.pki.leaf_rotation import rotation_time
from kuma.resources.models.mesh import Backend
from kuma.resources.models.mesh_transition import BackendStatus
from kuma.xds.proxies.meshes import MeshState

_NOTICE = timedelta(days=30)
"""Operators hear of the end of a CA that they provide at least this long before."""
_LONGEST_DELAY = timedelta(hours=1)
"""Within which a builtin root is renewed once it is time, however long it lives."""


def statuses(state: MeshState, now: datetime, drivers: Drivers = STANDARD) -> tuple[BackendStatus, ...]:
    """Returns the listed authorities, in the order of the Mesh."""
    return tuple(
        _status(backend, state, now, renews=drivers.of(backend).makes_root) for backend in state.config.view.backends
    )


def alarms(state: MeshState, drivers: Drivers = STANDARD) -> Iterator[datetime]:
    """Returns the times at which a status changes by itself."""
    for backend in state.config.view.backends:
        if backend.name in state.trust.opened:
            authority = state.trust.opened[backend.name][1]
            renews = drivers.of(backend).makes_root
            yield from (_alarm_time(backend, authority, renews=renews), authority.not_after)


def _status(backend: Backend, state: MeshState, now: datetime, *, renews: bool) -> BackendStatus:
    problem = state.trust.problems.get(backend.name, "")
    if backend.name not in state.trust.opened:
        return BackendStatus(name=backend.name, problem=problem)
    authority = state.trust.opened[backend.name][1]
    end, overdue = authority.not_after, False
    if now >= _alarm_time(backend, authority, renews=renews):
        overdue = renews
        ends = f"{'ended' if end <= now else 'ends'} at {end:%Y-%m-%dT%H:%M:%SZ}"
        remedy = (
            f"the root {ends} and has not been renewed, which was due at {_due(authority):%Y-%m-%dT%H:%M:%SZ}; the log "
            "of the control plane says why, or enable another backend"
            if overdue
            else f"the CA {ends}; provide another one"
        )
        problem = f"{problem}; {remedy}" if problem else remedy
    return BackendStatus(name=backend.name, not_after=end, problem=problem, renewal_overdue=overdue)


def _due(authority: Authority) -> datetime:
    return rotation_time(authority.not_before, authority.not_after, luck=0)


def _alarm_time(backend: Backend, authority: Authority, *, renews: bool) -> datetime:
    """Returns when an authority's end becomes a problem: nobody renews it, or, with `renews`, the renewal is late."""
    end = authority.not_after
    if renews:
        due = _due(authority)
        return due + min(_LONGEST_DELAY, (end - due) / 10)
    return end - max(backend.leaf_lifetime, _NOTICE)
