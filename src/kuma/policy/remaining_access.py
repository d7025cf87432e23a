"""Says in words whom a Dataplane's inbounds admit, for a proxy that goes on by earlier permissions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from kuma.policy.authorization import Admission, Principal
from kuma.resources import tags as tag_rules
from kuma.resources.models.dataplane import DataplaneSpec, Inbound
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView

AdmissionOf = Callable[[Resource[DataplaneSpec], Inbound], Admission]
"""Tells whom an inbound of a Dataplane admits."""

_NAMED = 10
"""How many inbounds, and callers of one, are named."""


def admits(
    view: MeshView, admission_of: AdmissionOf, dataplane: str, withheld: Collection[int] = ()
) -> tuple[str, ...]:
    """Returns a line for each inbound of a Dataplane, but for those that are `withheld`, by their indexes."""
    found = view.dataplanes.get(dataplane)
    if found is None:
        return ()
    inbounds = [inbound for index, inbound in enumerate(found.spec.net.inbound) if index not in withheld]
    lines = tuple(
        f"{inbound.service}:{inbound.port}: {_callers(view, admission_of(found, inbound))}"
        for inbound in inbounds[:_NAMED]
    )
    return (*lines, *([f"and {len(inbounds) - _NAMED} inbounds more"] if len(inbounds) > _NAMED else ()))


def _callers(view: MeshView, admission: Admission) -> str:
    if view.position.level < Level.STRICT:
        plaintext = "anybody, in plaintext"
        if view.position.level is Level.PLAIN:
            return plaintext
    else:
        plaintext = ""
    return " and ".join(filter(None, [_words(admission), plaintext]))


def _words(admission: Admission) -> str:
    if not admission.principals:
        return "nobody"
    admitted, denied = _listed(admission.principals), _listed(admission.denied)
    return f"{admitted} but not {denied}" if admission.denied else admitted


def _listed(principals: Sequence[Principal]) -> str:
    names = [_name(principal) for principal in principals[:_NAMED]]
    return ", ".join([*names, *([f"{len(principals) - _NAMED} more"] if len(principals) > _NAMED else ())])


def _name(principal: Principal) -> str:
    if not principal.tags:
        name = "everybody in the mesh"
    elif len(principal.tags) == 1 and principal.tags[0][0] == tag_rules.SERVICE:
        name = principal.tags[0][1]
    else:
        name = "+".join(f"{tag}={value}" for tag, value in principal.tags)
    return (
        f"{name} (with a certificate that does not show {' and '.join(principal.lacks)})" if principal.lacks else name
    )
