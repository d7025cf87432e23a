"""Stored Dataplanes are judged again: when a proxy arrives, when its administration moves, after a restart."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.base.tls.trust import NOBODY
from kuma.resources import codec
from kuma.resources.resource import Resource
from kuma.xds.envoy.resource import TypeUrl
from tests.admission.test_dataplane_rules import put
from tests.fakes.control_plane import MTLS, Running, resource, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

LISTENERS = {"inbound:10.0.0.1:80", "inbound:10.0.0.1:81"}


def described(name: str, *ports: int, address: str = "10.0.0.1", listens: str = "", admin: int = 9999) -> Resource[Any]:
    """A Dataplane whose inbounds, from port 80 on, lead to these ports of the loopback."""
    inbounds = ", ".join(
        f"{{port: {80 + i}, address: '{listens}', serviceAddress: 127.0.0.1, servicePort: {port}, "
        f"tags: {{kuma.io/service: {name}-{i}}}}}"
        for i, port in enumerate(ports)
    )
    return resource(
        f"{{type: Dataplane, mesh: default, name: {name}, networking: {{address: {address}, admin: {{port: {admin}}}, "
        f"inbound: [{inbounds}], outbound: [{{port: 20000, tags: {{kuma.io/service: attacker-0}}}}]}}}}"
    )


@contextlib.asynccontextmanager
async def connected(cp: Running, found: Resource[Any], admin: int, *, bring: bool = True) -> AsyncIterator[FakeProxy]:
    """A proxy whose Envoy has its administration at a port, whatever its Dataplane says."""
    proxy = FakeProxy(f"default.{found.name}", cp.token(), found if bring else None)
    proxy.node.metadata.update({"dataplane.admin.port": str(admin)})
    proxy.connect(await cp.channel())
    await proxy.until(lambda: proxy.held[TypeUrl.LISTENER])
    yield proxy
    await proxy.disconnect()


def serves(proxy: FakeProxy) -> set[str]:
    return {name for name in proxy.held[TypeUrl.LISTENER] if name.startswith("inbound:")}


async def test_an_inbound_is_withheld_when_a_proxy_arrives_where_it_leads_to(
    cp: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    await cp.apply(MTLS)
    attacker = described("attacker", 9905, 8081)
    await cp.apply_resource(attacker)
    async with connected(cp, attacker, 9999, bring=False) as proxy:
        await proxy.until(lambda: serves(proxy) == LISTENERS)
        neighbour = described("victim", 8082, address="10.0.0.2")
        async with connected(cp, neighbour, 9905) as victim:
            await proxy.until(lambda: serves(proxy) == {"inbound:10.0.0.1:81"})
            await proxy.until(lambda: "localhost:9905" not in proxy.held[TypeUrl.CLUSTER])
            assert serves(victim) == {"inbound:10.0.0.2:80"}
            # It is shown: in the insight, which `kumactl inspect dataplanes` reads, in the metrics, and in the log.
            reason = "networking.inbound[0].servicePort: 127.0.0.1:9905 is the administration of an Envoy"
            shown = await cp.insight(attacker, lambda insight: insight.withheld_inbounds)
            assert shown.withheld_inbounds[0].startswith(reason)
            async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
                metrics = await client.get(f"http://127.0.0.1:{await cp.parts.diagnostics.port()}/metrics")
            assert 'inbounds_withheld{mesh="default"} 1.0' in metrics.text
            assert reason in capsys.readouterr().out
        # The victim may come back, so nothing changes when it leaves; it does when its Dataplane has gone.
        assert serves(proxy) == {"inbound:10.0.0.1:81"}
        await cp.parts.manager.delete(neighbour.key)
        await proxy.until(lambda: serves(proxy) == LISTENERS)
    await cp.insight(attacker, lambda insight: not insight.withheld_inbounds)


async def test_callers_are_not_sent_to_an_inbound_that_is_withheld(cp: Running) -> None:
    attacker = described("attacker", 9905, 8081)
    async with connected(cp, attacker, 9999) as proxy:
        await cp.settled(1)
        await proxy.until(lambda: b"10.0.0.1" in proxy.held[TypeUrl.ENDPOINTS]["attacker-0"].value)
        async with connected(cp, described("victim", 8082, address="10.0.0.2"), 9905):
            await proxy.until(lambda: b"10.0.0.1" not in proxy.held[TypeUrl.ENDPOINTS]["attacker-0"].value)


async def test_it_is_when_an_administration_moves_there(cp: Running) -> None:
    attacker, victim = described("attacker", 9905, 8081), described("victim", 8082, address="10.0.0.2")
    async with connected(cp, attacker, 9999) as proxy:
        async with connected(cp, victim, 9906):
            assert serves(proxy) == LISTENERS
        async with connected(cp, victim, 9905):
            await proxy.until(lambda: serves(proxy) == {"inbound:10.0.0.1:81"})
        async with connected(cp, victim, 9906):
            await proxy.until(lambda: serves(proxy) == LISTENERS)


def leading(name: str, port: int, to: int) -> Resource[Any]:
    """A Dataplane on the loopback, whose inbound leads to another port of it."""
    return resource(
        f"{{type: Dataplane, mesh: default, name: {name}, networking: {{address: 127.0.0.1, inbound: [{{port: {port}, "
        f"servicePort: {to}, tags: {{kuma.io/service: {name}}}}}]}}}}"
    )


async def test_no_inbound_leads_to_where_another_proxy_listens(cp: Running) -> None:
    """Whoever is admitted by the one would reach the other from its own machine."""
    attacker, victim = leading("attacker", 4001, 4002), leading("victim", 4002, 4003)
    await cp.apply_resource(victim)  # which anybody may say: nothing shows that it is there
    async with connected(cp, attacker, 9901) as proxy:
        assert serves(proxy) == {"inbound:127.0.0.1:4001"}
        async with connected(cp, victim, 9902, bring=False) as other:
            await proxy.until(lambda: not serves(proxy))
            assert serves(other) == {"inbound:127.0.0.1:4002"}
            shown = await cp.insight(attacker, lambda insight: insight.withheld_inbounds)
            assert "127.0.0.1:4002 is the inbound of another Dataplane" in shown.withheld_inbounds[0]
            refused = await put(cp, codec.to_universal(attacker) | {"name": "another"})
            assert refused.status_code == 400
            assert "KUMA_DP_SERVER_ALLOWED_WORKLOADS" in refused.text
            await cp.apply_resource(leading("victim", 4004, 4003))
            await proxy.until(lambda: serves(proxy) == {"inbound:127.0.0.1:4001"})
            await cp.apply_resource(victim)
            await proxy.until(lambda: not serves(proxy))
        await cp.parts.manager.delete(victim.key)
        await proxy.until(lambda: serves(proxy) == {"inbound:127.0.0.1:4001"})


async def test_a_machine_is_not_told_by_what_its_dataplane_says(cp: Running) -> None:
    lying = described("attacker", 9905, address="192.0.2.1", listens="10.0.0.1")
    async with connected(cp, lying, 9999) as proxy, connected(cp, described("victim", 8082, address="10.0.0.2"), 9905):
        await proxy.until(lambda: not serves(proxy))


async def test_after_a_restart_nothing_is_served_before_the_other_proxy_is_back(tmp_path: Path) -> None:
    attacker, victim = described("attacker", 9905, 8081), described("victim", 8082)
    async with running(tmp_path) as cp:
        for found in (attacker, victim):
            await cp.apply_resource(found)
        async with connected(cp, victim, 9905, bring=False):
            await cp.insight(victim, lambda insight: insight.administration)
    async with running(tmp_path) as cp, connected(cp, attacker, 9999, bring=False) as proxy:
        await cp.settled(1)
        assert serves(proxy) == {"inbound:10.0.0.1:81"}
        assert (await put(cp, codec.to_universal(attacker) | {"name": "another"})).status_code == 400


async def test_what_is_allowed_may_change_with_a_restart(tmp_path: Path) -> None:
    elsewhere = codec.to_universal(described("web", 8081))
    elsewhere["networking"]["inbound"][0]["serviceAddress"] = "10.0.0.7"
    async with running(tmp_path, dp_server={"port": 0, "allowed_workloads": ["10.0.0.0/24"]}) as cp:
        assert (await put(cp, elsewhere)).status_code == 201
        async with connected(cp, codec.parse(elsewhere), 9999, bring=False) as proxy:
            assert serves(proxy) == {"inbound:10.0.0.1:80"}
    async with running(tmp_path) as cp:
        proxy = FakeProxy("default.web", cp.token())
        proxy.connect(await cp.channel())
        await cp.settled(1)
        assert not serves(proxy)
        assert (await put(cp, elsewhere)).status_code == 400
        await proxy.disconnect()


async def test_who_says_to_be_elsewhere_is_not_called_there(tmp_path: Path) -> None:
    outside = described("web", 8081, address="192.0.2.1")
    async with running(tmp_path) as cp:
        await cp.apply_resource(outside)
    async with running(tmp_path, dp_server={"port": 0, "dataplane_networks": ["10.0.0.0/8"]}) as cp:
        await cp.apply_resource(described("api", 8082))
        assert (await put(cp, codec.to_universal(outside) | {"name": "another"})).status_code == 400
        async with connected(cp, described("caller", 8083), 9901) as proxy:
            assert serves(proxy) == {"inbound:10.0.0.1:80"}
        proxy = await cp.proxy(outside, bring=False)
        shown = await cp.insight(outside, lambda insight: insight.withheld_inbounds)
        assert "KUMA_DP_SERVER_DATAPLANE_NETWORKS" in shown.withheld_inbounds[0]
        assert not serves(proxy)
