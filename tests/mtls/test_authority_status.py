"""How authorities are told of: what operators should hear in time, and what metrics show."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from kuma.authorities import builtin
from kuma.base.tls.trust import NOBODY
from kuma.mtls import authority_status
from kuma.pki import x509
from kuma.pki.x509 import CaPair
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import BackendStatus
from kuma.resources.view import MeshView
from kuma.xds.proxies.meshes import MeshState
from kuma.xds.proxies.metrics import EarliestEnd, Metrics
from tests.authorities.test_clean_up import complete
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, resource, running
from tests.fakes.patience import PATIENCE

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def pair(lifetime: timedelta, now: datetime = START) -> CaPair:
    key = ec.generate_private_key(ec.SECP256R1())
    return CaPair(x509.build_root("default", key, now, lifetime), key)


def state(lifetime: timedelta) -> MeshState:
    secrets = {secret.name: secret for secret in builtin.to_secrets("default", "ca-1", pair(lifetime))}
    return MeshState.of(MeshView("default", mesh=resource(MTLS), secrets=secrets), None)


@pytest.mark.parametrize(
    ("days", "begins"),
    [
        (79.9, ""),
        (80.02, ""),  # it may take a moment
        (
            80.1,
            "the root ends at 2026-04-11T00:00:00Z and has not been renewed, which was due at 2026-03-21T23:48:00Z;",
        ),
        (100.1, "the root ended at 2026-04-11T00:00:00Z and has not been renewed"),
    ],
)
def test_a_root_that_is_not_renewed_in_time_is_a_problem(days: float, begins: str) -> None:
    (status,) = authority_status.statuses(state(100 * DAY), START + days * DAY)
    assert status.problem.startswith(begins)
    assert bool(status.problem) == bool(begins) == status.renewal_overdue


def test_there_is_an_alarm_for_it_however_short_a_root_lives() -> None:
    for lifetime in (timedelta(minutes=1), DAY, 3650 * DAY):
        found = state(lifetime)
        late = min(authority_status.alarms(found))
        earlier = min(x509.BACKDATED, lifetime / 10)
        assert (lifetime + earlier) * 0.8 < late - START + earlier < lifetime + earlier
        (before,) = authority_status.statuses(found, late - timedelta(milliseconds=1))
        (after,) = authority_status.statuses(found, late)
        assert (before.renewal_overdue, after.renewal_overdue) == (False, True)


async def test_the_log_a_metric_and_the_transition_tell_of_it(tmp_path: Path) -> None:
    clock = ManualClock()
    with capture_logs() as logs:
        async with running(tmp_path, clock, without="root renewal") as cp:
            await cp.apply(MTLS.replace("type: builtin", "type: builtin, conf: {caCert: {expiration: 100d}}"))
            await cp.parts.views.until(lambda: complete(cp))
            clock.advance(81 * DAY.total_seconds())
            key = kinds.MESH_TRANSITION.key("default", "default")
            async with asyncio.timeout(PATIENCE):
                while not (await cp.parts.manager.get(key)).spec.backends[0].problem:
                    await asyncio.sleep(0.02)
            assert 'ca_renewal_overdue{backend="ca-1",mesh="default"} 1.0' in await shown_by(cp)
    (line,) = [line for line in logs if line["event"] == "authority has a problem"]
    assert "has not been renewed" in line["problem"]


async def shown_by(cp: Running) -> str:
    async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
        return (await client.get(f"http://127.0.0.1:{await cp.parts.diagnostics.port()}/metrics")).text


def test_metrics_show_the_authorities_that_there_are() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    def shown(name: str, backend: str) -> float | None:
        return registry.get_sample_value(name, {"mesh": "default", "backend": backend})

    one, two = (BackendStatus(name=n, not_after=START, renewal_overdue=n == "two") for n in ("one", "two"))
    metrics.authorities("default", (one, two))
    metrics.authorities("other", (one,))
    assert shown("ca_expiration_timestamp_seconds", "one") == START.timestamp()
    assert (shown("ca_renewal_overdue", "one"), shown("ca_renewal_overdue", "two")) == (0, 1)
    metrics.authorities("default", (one, BackendStatus(name="two", problem="is missing")))
    for name in ("ca_expiration_timestamp_seconds", "ca_renewal_overdue"):
        assert shown(name, "one") is not None
        assert shown(name, "two") is None
        assert registry.get_sample_value(name, {"mesh": "other", "backend": "one"}) is not None
    metrics.issued.labels("default", "one").inc()
    metrics.forget("default")
    assert shown("ca_renewal_overdue", "one") is None
    assert shown("cert_generation_total", "one") is None


def test_of_all_leaves_of_a_mesh_the_first_end_is_shown() -> None:
    registry = CollectorRegistry()
    ends = [("a", START + DAY), ("b", START), ("a", START + 2 * DAY)]
    registry.register(EarliestEnd("cert_expiration_timestamp_seconds", "Ends.", lambda: ends))
    name = "cert_expiration_timestamp_seconds"
    assert registry.get_sample_value(name, {"mesh": "a"}) == (START + DAY).timestamp()
    assert registry.get_sample_value(name, {"mesh": "b"}) == START.timestamp()


async def test_the_diagnostics_port_shows_when_leaves_and_authorities_end(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        web = await cp.proxy(dataplane("web-01", "web"))
        await web.until(lambda: web.certificate)
        text = await shown_by(cp)
        assert 'cert_expiration_timestamp_seconds{mesh="default"}' in text
        assert 'ca_expiration_timestamp_seconds{backend="ca-1",mesh="default"}' in text
