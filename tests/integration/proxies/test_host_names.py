"""Dataplanes that are known by host names, with real Envoys."""

from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.integration.sidecars import Sidecars, until


async def test_services_are_reached_where_their_names_lead(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    backend = await mesh.start("backend", address="localhost")
    web = await mesh.start("web", calls=("backend",), address="localhost")
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    assert "spiffe://default/web" in backend.headers[-1]["x-forwarded-client-cert"]
    (stored,) = (d for d in cp.parts.views.view("default").dataplanes.values() if d.name == "backend-01")
    assert stored.spec.net.address == "localhost"
