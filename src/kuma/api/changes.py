"""Makes changes on somebody's behalf, whose right to it has been checked: for the routes, and for the console.

The audit record has who weakens a mesh, and who wanted to where that is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from kuma.api.context import ApiContext
from kuma.api.http.errors import Problem
from kuma.base.errors import WeakeningRefused
from kuma.resources.resource import Key
from kuma.store.manager import Deletion, Outcome, ResourceManager
from kuma.store.protocol import AnyResource

_USE_KUBECTL = (
    "On Kubernetes you cannot change the state of Kuma resources with 'kumactl apply' or via the HTTP API. As a best "
    "practice, you should always be using 'kubectl apply' instead. Reading works here as everywhere: 'kumactl get' and "
    "'kumactl inspect'."
)


def check_writable(context: ApiContext) -> None:
    """Checks that resources are written here at all.

    Raises:
        Problem: 405, those of Kubernetes are written by kubectl.
    """
    if context.settings.read_only:
        raise Problem(405, "Method not allowed", _USE_KUBECTL)


async def put(
    context: ApiContext,
    resource: AnyResource,
    *,
    strict: bool = False,
    allow_weakening: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Creates or replaces a resource; see `ResourceManager.put`. With `dry_run` it is judged, and not stored."""
    manager = _manager(context, dry_run)
    with recording_refusals(context, resource.key):
        outcome = await manager.put(resource, strict=strict, allow_weakening=allow_weakening)
    if not dry_run:
        _record_weakening(context, resource.key, outcome.weakens)
    return outcome


async def delete(context: ApiContext, key: Key, *, allow_weakening: bool = False, dry_run: bool = False) -> Deletion:
    """Deletes a resource; see `ResourceManager.delete`."""
    manager = _manager(context, dry_run)
    with recording_refusals(context, key):
        deletion = await manager.delete(key, allow_weakening=allow_weakening)
    if not dry_run:
        _record_weakening(context, key, deletion.weakens)
    return deletion


def _manager(context: ApiContext, dry_run: bool) -> ResourceManager:
    return context.manager.rehearsal() if dry_run else context.manager


def _record_weakening(context: ApiContext, key: Key, weakens: Sequence[str]) -> None:
    if weakens:
        context.audit.record("weakened", type=key.kind, mesh=key.mesh, name=key.name, weakens=weakens)


@contextlib.contextmanager
def recording_refusals(context: ApiContext, key: Key) -> Iterator[None]:
    """Has it on record who wanted to weaken a mesh that refuses that, if only to know what would become of it."""
    try:
        yield
    except WeakeningRefused as error:
        would = [str(violation) for violation in error.violations]
        context.audit.record("weakening refused", type=key.kind, mesh=key.mesh, name=key.name, would=would)
        raise
