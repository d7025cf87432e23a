"""What is injected into Pods, as the settings and the cluster have it."""

from __future__ import annotations

from pathlib import Path

import structlog

import kuma
from kuma.app.configuration.settings import Settings
from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.injection import versions
from kuma.kubernetes.injection.options import Sidecars
from kuma.kubernetes.install.options import DEFAULT_REGISTRY

log = structlog.get_logger(__name__)

_REMEDY = "start the control plane again when these nodes are upgraded, or set KUMA_EXPERIMENTAL_SIDECAR_CONTAINERS"


async def sidecars(settings: Settings, client: ApiClient, system: str) -> Sidecars:
    """Returns what all sidecars have alike. `system` is the namespace of the control plane.

    Raises:
        Unavailable: the API server does not say its version.
    """
    chosen = settings.runtime.kubernetes
    injector, host = chosen.injector, f"{chosen.control_plane_service_name}.{system}"
    native, server = settings.experimental.sidecar_containers, await _version(client)
    return Sidecars(
        sidecar_image=injector.sidecar_container.image or _image("kuma-dp"),
        init_image=injector.init_container.image or _image("kuma-init"),
        control_plane=f"https://{host}:{settings.dp_server.port}",
        ca_pem="",  # as it is by then
        audience=audience(settings, system),
        native=await _has_native_sidecars(client, server) if native is None else native,
        drain_time=f"{injector.sidecar_container.drain_time.seconds:g}s",
        stop_seconds=injector.workload_stop_seconds if server >= versions.HOOKS_THAT_SLEEP else 0,
    )


def audience(settings: Settings, system: str) -> str:
    """Returns whom the tokens of sidecars are for: another control plane of the cluster has another name."""
    return f"{settings.runtime.kubernetes.control_plane_service_name}.{system}"


def ca(settings: Settings) -> Path:
    """Returns the CA by which we are verified; a chain that is given without one has it at its end."""
    found = settings.general.tls_ca_file or settings.general.tls_cert_file
    assert found is not None
    return found


def _image(name: str) -> str:
    return f"{DEFAULT_REGISTRY}/{name}:{kuma.__version__}"


async def _version(client: ApiClient) -> int:
    """Returns the minor version of the API server."""
    try:
        return versions.minor(await client.get("/version"))
    except ApiError as error:
        raise Unavailable(f"the Kubernetes API does not say its version: {error}") from None


async def _has_native_sidecars(client: ApiClient, server: int) -> bool:
    if not versions.may_have_older_nodes(server):
        return server >= versions.NATIVE_SIDECARS
    try:
        nodes, _ = await client.list("/api/v1/nodes")
    except ApiError as error:
        log.warning("the versions of nodes are not known: they are taken to have native sidecars", reason=str(error))
        return True
    older = versions.without_native_sidecars(nodes)
    if older:
        log.warning("nodes have no native sidecars: sidecars are containers like others", nodes=older, remedy=_REMEDY)
    return not older
