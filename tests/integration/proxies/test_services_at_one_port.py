"""A workload that is several services at one port, as Pods are that several Services of Kubernetes lead to."""

from __future__ import annotations

from tests.fakes.control_plane import MTLS, Running
from tests.integration.changes import edit_inbounds, tagged
from tests.integration.sidecars import Sidecars, until

SOME = (
    "{type: TrafficPermission, mesh: default, name: some, sources: [{match: {kuma.io/service: web}}], "
    "destinations: [{match: {kuma.io/service: SERVICE}}]}"
)


async def test_it_is_called_by_mutual_tls_as_either_and_calls_as_both(cp: Running, mesh: Sidecars) -> None:
    """Whoever may call one of them is admitted, by whichever name; it is itself admitted as either of them."""
    await cp.apply(MTLS)
    backend = await mesh.start("backend", calls=("store",))
    await mesh.start("store")
    web = await mesh.start("web", calls=("backend", "also-backend"))
    await until("nobody is admitted", lambda: web.is_refused("backend"))
    await edit_inbounds(cp, backend, lambda inbound: (inbound, tagged(inbound, {"kuma.io/service": "also-backend"})))
    await cp.apply(SOME.replace("SERVICE", "also-backend"))
    await until("web reaches it as the one", lambda: web.reaches("also-backend"))
    await until("web reaches it as the other", lambda: web.reaches("backend"))
    await cp.apply(SOME.replace("SERVICE", "store").replace("web", "also-backend"))
    await until("it is admitted as the other", lambda: backend.reaches("store"))
    await until("web is not any more", lambda: web.is_refused("backend"))
