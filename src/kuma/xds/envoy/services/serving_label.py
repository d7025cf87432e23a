"""Endpoint readiness: callers are sent to a proxy from when it serves until it says that it is about to end."""

from __future__ import annotations

from dataclasses import replace

from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource

SERVING = "kuma.io/serving"
"""Label of a Dataplane. One without it is taken to serve: whoever created it through the API says so."""
ENDED = "kuma.io/ended"
"""Label of a Dataplane whose proxy has said that it ends: it does not go on out of contact."""
_NO, _YES = "false", "true"


def is_serving(dataplane: Resource[DataplaneSpec]) -> bool:
    """Tells whether callers are to be sent to this Dataplane, as far as its proxy is concerned."""
    return dataplane.labels.get(SERVING) != _NO


def stops(before: Resource[DataplaneSpec], after: Resource[DataplaneSpec] | None) -> bool:
    """Tells whether callers are not sent to a Dataplane any more to which they were sent."""
    return is_serving(before) and (after is None or not is_serving(after))


def as_serving(dataplane: Resource[DataplaneSpec]) -> Resource[DataplaneSpec]:
    """Returns the Dataplane with its proxy serving."""
    return replace(begun(dataplane), labels={**begun(dataplane).labels, SERVING: _YES})


def begun(dataplane: Resource[DataplaneSpec]) -> Resource[DataplaneSpec]:
    """Returns the Dataplane with a proxy that has not said that it ends."""
    return replace(dataplane, labels={name: value for name, value in dataplane.labels.items() if name != ENDED})


def as_ended(dataplane: Resource[DataplaneSpec]) -> Resource[DataplaneSpec]:
    """Returns the Dataplane with a proxy that has said that it ends."""
    return replace(dataplane, labels={**dataplane.labels, SERVING: _NO, ENDED: _YES})


def has_ended(dataplane: Resource[DataplaneSpec]) -> bool:
    """Tells whether the proxy of this Dataplane has said that it ends."""
    return dataplane.labels.get(ENDED) == _YES


def as_not_serving(dataplane: Resource[DataplaneSpec]) -> Resource[DataplaneSpec]:
    """Returns the Dataplane with its proxy not serving yet, or no longer."""
    return replace(dataplane, labels={**dataplane.labels, SERVING: _NO})
