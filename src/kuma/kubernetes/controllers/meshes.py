"""Gives every Mesh what it needs, which the REST API makes together with it: roots, and a key for tokens.

And shows how its mutual TLS stands where `kubectl get meshes` looks.
"""

from __future__ import annotations

from typing import Any

import structlog

from kuma.base import aio
from kuma.base.errors import AlreadyExists, Conflict, InvalidResource, KumaError, NotFound
from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.controllers.due import Due
from kuma.kubernetes.objects.forms import Forms
from kuma.resources import kinds
from kuma.resources.view import MeshView
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Create, Expect
from kuma.store.views import Views
from kuma.tokens import dataplane_tokens

log = structlog.get_logger(__name__)

_RETRY = aio.Backoff(first=0.5, last=30.0)


class MeshController:
    """Looks at a mesh whenever it changes."""

    def __init__(self, client: ApiClient, forms: Forms, manager: ResourceManager, views: Views) -> None:
        self._client = client
        self._forms = forms
        self._manager = manager
        self._views = views
        self._due = Due[str](_RETRY)
        self._shown: dict[str, dict[str, str]] = {}
        self._complete_with: dict[str, tuple[object, object]] = {}
        """The Mesh and the Secrets with which nothing was missing."""
        views.on_change(self._due.add)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._views.until(lambda: True)
        self._due.add(self._views.meshes)
        while True:
            for mesh in sorted(await self._due.taken()):
                await self._see_to(self._views.view(mesh))

    async def _see_to(self, view: MeshView) -> None:
        if view.mesh is None:
            self._due.settled(view.name)
            self._shown.pop(view.name, None)
            self._complete_with.pop(view.name, None)
            return
        try:
            await self._complete(view)
            await self._show(view)
            self._due.settled(view.name)
        except (AlreadyExists, Conflict, NotFound):
            pass  # it has changed meanwhile, which makes us look again
        except (KumaError, ApiError) as error:
            self._failed(view.name)
            log.error("a mesh lacks what it needs", mesh=view.name, reason=str(error))
        except Exception:  # whatever it is, it is this mesh's: the others go on
            self._failed(view.name)
            log.exception("a mesh lacks what it needs", mesh=view.name)

    def _failed(self, mesh: str) -> None:
        self._due.failed(mesh)
        self._client.metrics.controller_failures.labels("meshes").inc()

    async def _complete(self, view: MeshView) -> None:
        """Creates what the rules of Meshes create, if something is missing."""
        assert view.mesh is not None
        spec, secrets = self._complete_with.get(view.name, (None, None))
        if spec == view.mesh.spec and secrets is view.secrets:
            return
        has_key = dataplane_tokens.signing_key_name(view.name) in view.secrets
        try:
            judged = await self._manager.judge(view.mesh if has_key else None, view.mesh, allow_weakening=True)
        except InvalidResource as error:  # it was written past admission, or a Secret has gone: its transition tells
            log.warning("a mesh breaks its rules", mesh=view.name, reason=str(error))
            return
        operations = [operation for operation in judged.decision.operations if isinstance(operation, Create)]
        roots = [operation for operation in operations if operation.resource.key.kind == kinds.SECRET.name]
        if not roots:
            self._complete_with[view.name] = (view.mesh.spec, view.secrets)
            return
        guards = [op for op in judged.decision.operations if isinstance(op, Expect)]
        await self._manager.store.transact([Expect(view.mesh.key, view.mesh.version), *guards, *roots])
        log.info("mesh completed", mesh=view.name, secrets=[root.resource.name for root in roots])

    async def _show(self, view: MeshView) -> None:
        assert view.mesh is not None
        status = mesh_status(view)
        if self._shown.get(view.name) == status:
            return
        path = self._forms.of(kinds.MESH.name).path(view.mesh.key)
        await self._client.merge(f"{path}/status", {"status": status})
        self._shown[view.name] = status


def mesh_status(view: MeshView) -> dict[str, Any]:
    """Returns what the columns of `kubectl get meshes` show."""
    backend = view.enabled_backend
    transition = view.transition.spec if view.transition else None
    step = transition.step if transition else ""
    return {
        "mode": backend.mode if backend else "off",
        "backend": f"{backend.type}/{backend.name}" if backend else "",
        "state": step or ("waiting" if backend else "complete"),
    }
