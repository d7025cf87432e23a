"""Rules for Dataplanes that people write in a cluster: they say nothing about what follows from Pods and Services."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from kuma.base.errors import Violation
from kuma.base.values.addresses import written
from kuma.resources import tags as tag_rules
from kuma.resources.models.dataplane import Networking, listen_address

_OF_SERVICE = re.compile(r".+_(?P<namespace>[a-z0-9-]+)_svc(_\d+)?", re.ASCII)
"""The names that services of Kubernetes have, as `redis_shop_svc_6379`."""
_TAGS = frozenset({tag_rules.SERVICE, tag_rules.PROTOCOL, tag_rules.ZONE, "kuma.io/instance"})
_LABELS = frozenset(
    {"kuma.io/mesh", "kuma.io/display-name", "kuma.io/workload", "kuma.io/origin", "kuma.io/zone", "kuma.io/env"}
)
"""What people may say by names of ours. All others say what only the control plane knows."""
_WRITTEN_BY_US = "is written by the control plane, as Pods and Services say; leave it out"


def violations(networking: Networking, labels: Mapping[str, str], namespace: str) -> Iterator[Violation]:
    """Checks a Dataplane that is to be in a namespace; fields are those of the resource.

    Its services are not those of other namespaces: callers would be sent here. And it is called where it is, not at the
    addresses of whole services.
    """
    for name in labels:
        if _is_reserved(name, _LABELS):
            yield Violation(f'labels["{name}"]', _WRITTEN_BY_US)
    tagged = [(f"networking.inbound[{i}].tags", inbound.tags) for i, inbound in enumerate(networking.inbound)]
    if networking.gateway is not None:
        tagged.append(("networking.gateway.tags", networking.gateway.tags))
    for path, tags in tagged:
        yield from (Violation(f'{path}["{name}"]', _WRITTEN_BY_US) for name in tags if _is_reserved(name, _TAGS))
        service = tags.get(tag_rules.SERVICE, "")
        found = _OF_SERVICE.fullmatch(service)
        if found and found["namespace"] != namespace:
            where = f"is a service of namespace {found['namespace']}, and this is {namespace}"
            yield Violation(f'{path}["{tag_rules.SERVICE}"]', f'"{service}" {where}')


def addresses(networking: Networking) -> Mapping[str, str]:
    """Returns the addresses at which a Dataplane says that it is called, each with the field that says so first.

    They are as Kubernetes writes them: who says `::ffff:10.0.0.7` is called at 10.0.0.7.
    """
    said = [(networking.address, "networking.address"), (networking.advertised_address, "networking.advertisedAddress")]
    for index, inbound in enumerate(networking.inbound):
        said.append((listen_address(networking, inbound), f"networking.inbound[{index}].address"))
    found: dict[str, str] = {}
    for address, field in said:
        if address:
            found.setdefault(written(address) or address, field)
    return found


def _is_reserved(name: str, allowed: Collection[str]) -> bool:
    domain, slash, _ = name.partition("/")
    return bool(slash) and (domain == "kuma.io" or domain.endswith(".kuma.io")) and name not in allowed
