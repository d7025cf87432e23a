"""The probe of an inbound: how its proxy asks whether the workload answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from pydantic import StrictInt

from kuma.base.errors import Violation
from kuma.base.values import durations
from kuma.resources.duration import Duration
from kuma.resources.resource import Model

_LARGEST = 2**32 - 1
_POSITIVE = "must have a positive value"


class Tcp(Model):
    """The workload answers if a connection to it can be opened. There is no other way to ask."""


class ServiceProbe(Model):
    """Envoy asks every `interval`; so many answers in a row as the thresholds say, or none, change what it says."""

    interval: Duration | None = None
    timeout: Duration | None = None
    unhealthy_threshold: StrictInt | None = None
    healthy_threshold: StrictInt | None = None
    tcp: Tcp | None = None


def time(given: Duration | None, default: timedelta) -> timedelta:
    """Returns a time of a validated probe."""
    return default if given is None else durations.parse_go_duration(given)


def validate(path: str, probe: ServiceProbe) -> Iterator[Violation]:
    """Refuses times and thresholds that are none."""
    for name, given in (("interval", probe.interval), ("timeout", probe.timeout)):
        if given is None:
            continue
        try:
            durations.parse_go_duration(given)
        except ValueError as error:
            yield Violation(f"{path}.{name}", f"{_POSITIVE}: {error}")
    for name, number in (
        ("unhealthyThreshold", probe.unhealthy_threshold),
        ("healthyThreshold", probe.healthy_threshold),
    ):
        if number is not None and not 0 < number <= _LARGEST:
            yield Violation(f"{path}.{name}", _POSITIVE)
