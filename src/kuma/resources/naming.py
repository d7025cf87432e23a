"""How kinds of resources are called: in files, in paths of the API, and by people. Needs no model of what they hold."""

from __future__ import annotations

from typing import Literal, NamedTuple

from kuma.resources.keys import Key


class Naming(NamedTuple):
    """The names of one kind: `Mesh` in files, `meshes` in paths, and what people type."""

    name: str
    scope: Literal["Global", "Mesh"]
    path: str
    singular: str
    plural: str

    @property
    def in_mesh(self) -> bool:
        """Tells whether its resources belong to a mesh."""
        return self.scope == "Mesh"

    def key(self, name: str, mesh: str = "") -> Key:
        """The key of a resource of this kind."""
        return Key(self.name, mesh if self.in_mesh else "", name)


MESH = Naming("Mesh", "Global", "meshes", "mesh", "meshes")
DATAPLANE = Naming("Dataplane", "Mesh", "dataplanes", "dataplane", "dataplanes")
DATAPLANE_INSIGHT = Naming("DataplaneInsight", "Mesh", "dataplane-insights", "dataplane-insight", "dataplane-insights")
MESH_TRANSITION = Naming("MeshTransition", "Mesh", "mesh-transitions", "mesh-transition", "mesh-transitions")
TRAFFIC_PERMISSION = Naming(
    "TrafficPermission", "Mesh", "traffic-permissions", "traffic-permission", "traffic-permissions"
)
MESH_TRAFFIC_PERMISSION = Naming(
    "MeshTrafficPermission", "Mesh", "meshtrafficpermissions", "meshtrafficpermission", "meshtrafficpermissions"
)
TRAFFIC_LOG = Naming("TrafficLog", "Mesh", "traffic-logs", "traffic-log", "traffic-logs")
MESH_ACCESS_LOG = Naming("MeshAccessLog", "Mesh", "meshaccesslogs", "meshaccesslog", "meshaccesslogs")
SECRET = Naming("Secret", "Mesh", "secrets", "secret", "secrets")
GLOBAL_SECRET = Naming("GlobalSecret", "Global", "global-secrets", "global-secret", "global-secrets")

WRITABLE = (
    MESH,
    DATAPLANE,
    TRAFFIC_PERMISSION,
    MESH_TRAFFIC_PERMISSION,
    TRAFFIC_LOG,
    MESH_ACCESS_LOG,
    SECRET,
    GLOBAL_SECRET,
)
"""The kinds that have an effect here and that users write."""
BY_NAME = {naming.name: naming for naming in (*WRITABLE, DATAPLANE_INSIGHT, MESH_TRANSITION)}
"""The kinds that have an effect here, by the `type` of their resources."""
