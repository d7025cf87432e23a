"""What a real Envoy does with a configuration of which one part is bad, and what is told of it."""

import socket

import pytest

from demo.processes import free_ports
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import ALLOW_ALL, Running
from tests.integration.sidecars import Sidecars, http_status, until


@pytest.fixture
def declared() -> tuple[str, ...]:
    return (ALLOW_ALL,)


async def test_a_port_that_is_taken_is_told_and_what_came_with_it_runs(cp: Running, mesh: Sidecars) -> None:
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",))
    await until("web reaches backend", lambda: web.call("backend"))
    (proxy,) = (found for found in cp.parts.proxies if found.key.name == "web-01")
    described = await cp.parts.manager.get(proxy.key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken, (free,) = server.getsockname()[1], free_ports(1)
        await cp.apply_resource(with_outbounds(described, taken, free))
        insight = await cp.insight(described, lambda i: i.subscriptions[-1].status.lds.last_rejection)
        assert f"127.0.0.1:{taken}" in insight.subscriptions[-1].status.lds.last_rejection

        async def answered() -> bool:
            return proxy.session.answered

        await until("Envoy has answered to each listener", answered)
        names = {f"outbound:127.0.0.1:{port}" for port in (taken, free)}
        assert names & set(proxy.session.acked(TypeUrl.LISTENER)) == {f"outbound:127.0.0.1:{free}"}
        assert await http_status(free) == 200
        assert not proxy.converged
        await cp.apply_resource(with_outbounds(described, free))
        await mesh.converged()
        await cp.insight(described, lambda i: not i.subscriptions[-1].status.lds.last_rejection)


def with_outbounds(described: Resource[DataplaneSpec], *ports: int) -> Resource[DataplaneSpec]:
    """A Dataplane that calls the same service at these ports, too."""
    net = described.spec.net
    more = tuple(net.outbound[0].model_copy(update={"port": port}) for port in ports)
    changed = net.model_copy(update={"outbound": (*net.outbound, *more)})
    return described.with_spec(described.spec.model_copy(update={"networking": changed}))
