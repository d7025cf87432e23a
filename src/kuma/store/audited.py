"""The audit record of what is stored: noted by the store itself, with each commit, whoever makes it."""

from __future__ import annotations

from collections.abc import Callable

from kuma.base.audit import Audit
from kuma.resources import kinds
from kuma.store.protocol import Commit, Put, Removed

_UNRECORDED = frozenset(
    kind.name for kind in (kinds.DATAPLANE_INSIGHT, kinds.MESH_TRANSITION, kinds.OBSERVED_TRAFFIC, *kinds.COORDINATION)
)
"""What the control plane notes for itself."""


def recorder(audit: Audit) -> Callable[[Commit], None]:
    """Notes every change of a commit. Called before anything can be told of the commit, or cancelled."""

    def record(commit: Commit) -> None:
        for change in commit.changes:
            key = change.resource.key if isinstance(change, Put) else change.key
            if key.kind not in _UNRECORDED and not key.name.startswith(kinds.FORMER_PERMISSION):
                event = f"resource {_action(change)}"
                audit.record(event, type=key.kind, mesh=key.mesh, name=key.name, revision=commit.revision)

    return record


def _action(change: Put | Removed) -> str:
    if isinstance(change, Removed):
        return "deleted"
    return "created" if change.created or change.resource.version == 1 else "updated"
