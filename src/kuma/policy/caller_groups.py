"""Sorts the callers of an inbound into groups, so that what ends one caller's connections leaves those of others alone.

Envoy ends connections by filter chain. With a chain for each group of callers that holds the part of the rules that is
about them, a change of permissions changes the chains of those whom it concerns, and no others. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from kuma.policy.authorization import Admission, Principal
from kuma.resources import tags as tag_rules

GROUPS = 256
"""How many there are at most."""
CHAINS = 64
"""How many chains an inbound has for them at most: each costs about 2 KiB in every proxy of the service, and here."""
Sharing = tuple[str, ...]
"""Groups that share a chain: one, unless there are more than `CHAINS`."""
Companions = Mapping[str, frozenset[str]]
"""A service -> the others that some leaf shows beside it: a Dataplane has an identity for each of its services."""
NOTHING_BESIDE: Companions = {}


def group(services: Sequence[str]) -> str:
    """Returns the group of callers with these services, the same for ever."""
    return _group(tuple(services))


@lru_cache(maxsize=10_000)
def _group(services: tuple[str, ...]) -> str:
    number = int.from_bytes(hashlib.sha256(",".join(services).encode()).digest()[:4]) % GROUPS
    return f"{number:02x}"


def groups(callers: Iterable[Sequence[str]]) -> Mapping[Sharing, tuple[str, ...]]:
    """Returns the groups of callers, given as their services, with all services in each.

    Where there are many, some share a chain: the same ones whatever others there are.
    """
    found: dict[str, set[str]] = {}
    for services in {tuple(services) for services in callers if services}:
        found.setdefault(group(services), set()).update(services)
    chains: dict[int, list[str]] = {}
    for name in sorted(found):
        chains.setdefault(int(name, 16) % (CHAINS if len(found) > CHAINS else GROUPS), []).append(name)
    return {tuple(names): tuple(sorted(set().union(*(found[name] for name in names)))) for names in chains.values()}


def companions(combinations: Iterable[Sequence[str]]) -> Companions:
    """Returns the services that a leaf may show beside a service, by the combinations that Dataplanes have."""
    found: dict[str, set[str]] = {}
    for services in combinations:
        for service in services:
            found.setdefault(service, set()).update(services)
    return {service: frozenset(others - {service}) for service, others in found.items()}


def part_for(admission: Admission, services: Iterable[str], beside: Companions = NOTHING_BESIDE) -> Admission:
    """Returns what an admission says about callers with one of these services, in one form for equal meanings.

    Who shows a service that is denied is refused, whatever other services it shows, and whichever group it says it is
    in: so what is said about the services `beside` these is part of it.
    """
    known = sorted(services)
    around = sorted({*known, *(other for service in known for other in beside.get(service, ()))})
    denied = _simplest(_spread(admission.denied, around))
    barred = {_service(principal) for principal in denied if _is_bare(principal)}
    allowed = _simplest(p for p in _spread(admission.principals, known) if _service(p) not in barred)
    named = {str(_service(principal)) for principal in allowed}
    left = named.union(*(beside.get(service, ()) for service in named))
    return Admission(
        "callers" if allowed else "",
        allowed,
        tuple(principal for principal in denied if _service(principal) in left),
        tuple(p for p in _simplest(_spread(admission.shadowed, around)) if _service(p) in left),
    )


def _spread(principals: Iterable[Principal], services: Sequence[str]) -> Iterator[Principal]:
    for principal in principals:
        named = _service(principal)
        if named is None:
            for service in services:
                yield replace(principal, tags=tuple(sorted((*principal.tags, (tag_rules.SERVICE, service)))))
        elif named in services:
            yield principal


def _simplest(principals: Iterable[Principal]) -> tuple[Principal, ...]:
    """Without those whom another one means anyway."""
    found = set(principals)
    bare = {_service(principal) for principal in found if _is_bare(principal)}
    return tuple(sorted(p for p in found if _is_bare(p) or _service(p) not in bare))


def _service(principal: Principal) -> str | None:
    return dict(principal.tags).get(tag_rules.SERVICE)


def _is_bare(principal: Principal) -> bool:
    return len(principal.tags) == 1 and not principal.lacks
