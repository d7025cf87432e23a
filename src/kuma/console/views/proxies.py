"""Lists proxies as people look for them. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from kuma.console.views import lists
from kuma.console.views.lists import Page
from kuma.foresight.course import Insights
from kuma.pki import spiffe
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec, Status
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView

_SOON = timedelta(hours=24)
_NOTHING = DataplaneInsightSpec()


class Proxy(NamedTuple):
    """A Dataplane and what is known of its proxy."""

    name: str
    services: tuple[str, ...]
    spiffe_ids: tuple[str, ...]
    online: bool
    expires: datetime | None
    rotations: int
    issued_by: str
    kuma_dp: str
    envoy: str
    problems: tuple[str, ...]
    """What was rejected and why, and what is not served."""
    token_ends: datetime | None


class Found(NamedTuple):
    """A page of those that were looked for, how many there are, and how many of each state there are in all."""

    proxies: Page[Proxy]
    counts: Mapping[str, int]


STATES: Mapping[str, tuple[str, Callable[[Proxy, datetime], bool]]] = {
    "all": ("All", lambda proxy, now: True),
    "online": ("Connected", lambda proxy, now: proxy.online),
    "offline": ("Not connected", lambda proxy, now: not proxy.online),
    "problems": ("With problems", lambda proxy, now: bool(proxy.problems)),
    "uncertified": ("Connected without a certificate", lambda proxy, now: proxy.online and proxy.expires is None),
    "ending": (
        "Certificate ends within a day",
        lambda proxy, now: proxy.expires is not None and proxy.expires < now + _SOON,
    ),
}
"""What the list can be narrowed to, by the value in the query."""


def found(view: MeshView, insights: Insights, asked: str, state: str, page: int, now: datetime) -> Found:
    """Returns a page of the proxies whose name or service has `asked` in it, and which are in a state."""
    text = asked.lower()
    named = [
        proxy(dataplane, insights.get(name), view.name)
        for name, dataplane in sorted(view.dataplanes.items())
        if text in name.lower() or any(text in service.lower() for service in dataplane.spec.services)
    ]
    counts = {key: sum(holds(one, now) for one in named) for key, (_, holds) in STATES.items()}
    _, holds = STATES.get(state, STATES["all"])
    wanted = [one for one in named if holds(one, now)]
    return Found(lists.page(wanted, page), counts)


def proxy(dataplane: Resource[DataplaneSpec], insight: DataplaneInsightSpec | None, mesh: str) -> Proxy:
    """Returns what is shown of one proxy."""
    known = insight or _NOTHING
    services = tuple(sorted(dataplane.spec.services))
    version = known.subscriptions[-1].version if known.subscriptions else None
    return Proxy(
        name=dataplane.name,
        services=services,
        spiffe_ids=tuple(spiffe.service_id(mesh, service) for service in services),
        online=known.online,
        expires=known.mtls.certificate_expiration_time if known.mtls else None,
        rotations=known.mtls.certificate_regenerations if known.mtls else known.past_regenerations,
        issued_by=known.mtls.issued_backend if known.mtls else "",
        kuma_dp=version.kuma_dp.version if version else "",
        envoy=version.envoy.version if version else "",
        problems=tuple(_problems(known)),
        token_ends=known.token.expiration_time if known.token else None,
    )


def _problems(insight: DataplaneInsightSpec) -> Iterator[str]:
    if insight.online:
        for kind, reason in rejections(insight.subscriptions[-1].status):
            yield f"rejects its {kind}: {reason}"
    for reason in insight.withheld_inbounds:
        yield f"an inbound is not served: {reason}"
    for reason in insight.unresolved_names:
        yield f"a host name is not resolved: {reason}"


def rejections(status: Status) -> Iterator[tuple[str, str]]:
    """Yields what stands rejected of a subscription: the type of configuration, and Envoy's reason."""
    for kind, answers in (
        ("clusters", status.cds),
        ("endpoints", status.eds),
        ("listeners", status.lds),
        ("routes", status.rds),
        ("secrets", status.sds),
    ):
        if answers.last_rejection:
            yield kind, " ".join(answers.last_rejection.split())
