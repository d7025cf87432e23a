"""When a rollout is looked at again though nothing happens: a proxy that is away is out of contact at a known time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kuma.mtls.steps.progress import Patience, ProxyProgress, judge
from kuma.resources.models.last_contact import LastContact
from kuma.resources.models.mesh_transition import Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = Patience(answer=timedelta(seconds=30), absence=timedelta(seconds=15))
HOUR = timedelta(hours=1)


def test_a_proxy_that_is_away_is_looked_at_when_it_is_out_of_contact_and_when_its_leaf_ends() -> None:
    position = Position()
    proxy = ProxyProgress(left=NOW)
    proxy.joined(NOW)
    proxy.ran(position, NOW)
    proxy.gone(NOW, LastContact(since=NOW, may_serve_until=NOW + HOUR))

    def looked(after: timedelta) -> tuple[tuple[str, ...], datetime | None]:
        progress = judge({"web-01": proxy}, position, NOW + after, PATIENCE)
        return progress.out_of_contact, progress.look_again

    assert looked(timedelta(seconds=10)) == ((), NOW + PATIENCE.absence)
    assert looked(timedelta(seconds=20)) == (("web-01",), NOW + PATIENCE.answer), "nobody shows the position any more"
    assert looked(timedelta(seconds=40)) == (("web-01",), NOW + HOUR)
    assert looked(HOUR) == ((), None)
