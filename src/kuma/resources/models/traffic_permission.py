"""TrafficPermission: which sources may call which destinations."""

from __future__ import annotations

from collections.abc import Iterator

from kuma.base.errors import Violation
from kuma.resources import tags
from kuma.resources.resource import Model


class Selector(Model):
    """Matches whoever carries all of these tags; the value `*` stands for any."""

    match: dict[str, str] = {}


class TrafficPermissionSpec(Model):
    """Spec of a TrafficPermission."""

    sources: tuple[Selector, ...] = ()
    destinations: tuple[Selector, ...] = ()


def validate(spec: TrafficPermissionSpec) -> Iterator[Violation]:
    """Refuses empty lists and malformed tags."""
    yield from validate_selectors(spec.sources, spec.destinations)


def validate_selectors(sources: tuple[Selector, ...], destinations: tuple[Selector, ...]) -> Iterator[Violation]:
    """Checks what a policy says of both sides."""
    for field, selectors in (("sources", sources), ("destinations", destinations)):
        if not selectors:
            yield Violation(field, "must have at least one element")
        for index, selector in enumerate(selectors):
            path = f"{field}[{index}].match"
            if not selector.match:
                yield Violation(path, "must have at least one tag")
            yield from tags.validate(path, selector.match, selector=True)
