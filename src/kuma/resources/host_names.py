"""Host names in Dataplanes, and Dataplanes with addresses in their place. Pure.

What is stored, and shown to users, has the names as they were written; what proxies run has addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kuma.base.values import addresses
from kuma.resources.models import dataplane_validation as rules
from kuma.resources.models.dataplane import DataplaneSpec, Inbound, Networking, listen_address

_INBOUND = re.compile(r"networking\.inbound\[(\d+)\]")


def host_names(networking: Networking) -> frozenset[str]:
    """Returns the names under which a proxy, or a workload behind it, is reached."""
    given = (networking.address, networking.advertised_address, *(i.service_address for i in networking.inbound))
    return frozenset(filter(_is_name, given))


def resolved(spec: DataplaneSpec, known: Mapping[str, str]) -> DataplaneSpec:
    """Returns a Dataplane with the addresses in the place of the names that are `known`."""

    def address(text: str) -> str:
        return known.get(text, text)

    networking = spec.net
    inbound = tuple(
        each.model_copy(update={"service_address": address(each.service_address)}) for each in networking.inbound
    )
    found = {
        "address": address(networking.address),
        "advertised_address": address(networking.advertised_address),
        "inbound": inbound,
    }
    return spec.model_copy(update={"networking": networking.model_copy(update=found)})


def unserved(spec: DataplaneSpec, failures: Mapping[str, str]) -> Mapping[int, str]:
    """Returns the inbounds of a resolved Dataplane that cannot be served, by their indexes, each with the reason.

    A name has no address (`failures` says why), or it has one with which the Dataplane breaks a rule.
    """
    networking = spec.net
    found: dict[int, str] = {}
    for index, inbound in enumerate(networking.inbound):
        for field, name in _needed(networking, inbound, index):
            if _is_name(name):
                found.setdefault(index, f'{field}: "{name}" {failures.get(name, "is being resolved")}')
    for violation in rules.validate(spec):
        said = _INBOUND.match(violation.field)
        for index in (int(said[1]),) if said else range(len(networking.inbound)):
            if said or violation.field in ("networking.address", "networking.advertisedAddress"):
                found.setdefault(index, str(violation))
    return found


def _needed(networking: Networking, inbound: Inbound, index: int) -> Iterator[tuple[str, str]]:
    yield "networking.address", listen_address(networking, inbound)
    yield "networking.advertisedAddress", networking.advertised_address
    yield f"networking.inbound[{index}].serviceAddress", inbound.service_address


def _is_name(text: str) -> bool:
    return bool(text) and addresses.parse(text) is None
