"""Measures what an inbound costs that very many Dataplanes call: sorting them into groups, and the rules of each.

That is done for such an inbound when who calls it changes, and when its permissions do.

    python -m benchmarks.bench_groups [CALLERS]
"""

from __future__ import annotations

import sys
import time

from kuma.policy import caller_groups
from kuma.policy.permissions import Permissions
from kuma.resources.view import MeshView
from tests.fakes.control_plane import ALLOW_ALL, dataplane, resource

CALLERS = 5000
SERVICES = (1, 64, 256, 5000)


def measure(callers: int, services: int) -> tuple[int, float, float]:
    """Returns the chains that there are for callers of so many services, and milliseconds of CPU: groups, and rules."""
    known = [dataplane(f"c{number}", f"s{number % services}", calls=("api",)) for number in range(callers)]
    permissions = MeshView("default").having(resource(ALLOW_ALL)).permissions
    admission = Permissions().following(permissions, {}).admission({"kuma.io/service": "api"})
    start = time.thread_time()
    groups = caller_groups.groups(caller.spec.services for caller in known)
    sorted_by = time.thread_time()
    parts = [caller_groups.part_for(admission, found) for found in groups.values()]
    return len(parts), (sorted_by - start) * 1e3, (time.thread_time() - sorted_by) * 1e3


def main(callers: int = CALLERS) -> None:
    """Print the figures."""
    print(f"An inbound that {callers} Dataplanes call")
    for services in SERVICES:
        chains, groups, rules = measure(callers, services)
        print(
            f"  of {services:5} services: {chains:3} chains, CPU {groups:5.1f} ms for groups, {rules:5.1f} ms for rules"
        )
    print()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else CALLERS)
