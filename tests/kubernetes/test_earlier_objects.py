"""What an earlier version has left in a cluster is gone on with: Meshes, their CAs, permissions, tokens, the Lease.

`earlier/objects.yaml` are the objects of commit 2f10e39 (2026-11-26): a mesh with a `builtin` CA that was changed once,
and one in PERMISSIVE with a Secret as cert-manager writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.processes import until
from tests.kubernetes.kubectl import apply, builtin, exists, mesh, metrics_of, shown
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import NAMESPACE, installed

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built

EARLIER = Path(__file__).parent / "earlier" / "objects.yaml"
KINDS = "meshes,meshtransitions,trafficpermissions,meshtrafficpermissions,dataplanes"


def clear(cluster: Cluster) -> None:
    cluster.kubectl("delete", KINDS, "-A", "--all")
    if not cluster.kubectl("get", "namespace", NAMESPACE, check=False).returncode:
        cluster.kubectl("delete", "secrets,leases", "-n", NAMESPACE, "--all")


def put_back(cluster: Cluster, objects: list[dict[str, Any]]) -> None:
    """With their owners, which have other UIDs now, and with what is in `status`."""
    owners: dict[str, str] = {}
    for found in sorted(objects, key=lambda found: found["kind"] != "Mesh"):
        for reference in found["metadata"].get("ownerReferences", ()):
            reference["uid"] = owners[reference["uid"]]
        cluster.kubectl("create", "-f", "-", text=yaml.safe_dump(found))
        if found["kind"] == "Mesh":
            owners[found["metadata"]["uid"]] = shown(cluster, "mesh", found["metadata"]["name"])["metadata"]["uid"]


@pytest.fixture
def left(cluster: Cluster) -> Iterator[list[dict[str, Any]]]:
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    clear(cluster)
    objects = list(yaml.safe_load_all(EARLIER.read_text()))
    put_back(cluster, objects)
    yield objects
    clear(cluster)


def test_a_control_plane_goes_on_with_what_an_earlier_one_has_left(
    cluster: Cluster, left: list[dict[str, Any]], tmp_path: Path
) -> None:
    with installed(cluster, tmp_path) as kuma:
        token = cluster.kubectl(
            "get", "secret", "admin-user-token", "-n", NAMESPACE, "--template={{.data.value | base64decode}}"
        ).stdout
        knows = partial(kuma.get, "/meshes", token)
        until("it leads, and knows the token of the earlier one", lambda: knows() is not None, kuma.processes)
        assert {found["name"] for found in knows()["items"]} == {"default", "own"}
        assert {found["name"] for found in kuma.get("/meshes/default/dataplanes", token)["items"]} == {
            f"by-hand.{NAMESPACE}"
        }
        for found in left:
            if found["kind"] == "MeshTransition":
                now = shown(cluster, "meshtransition", found["metadata"]["name"])["status"]
                assert now["position"]["authority"] == found["status"]["position"]["authority"]
                assert now["complete"]
            if found["kind"] == "Secret" and found["metadata"]["name"] != "kuma-tls-cert":
                assert shown(cluster, "secret", found["metadata"]["name"])["data"] == found["data"]
        assert "kubernetes_objects_passed_over_total 0.0" in metrics_of(kuma)
        backends = [builtin(), builtin("ca-2"), builtin("ca-3")]
        apply(cluster, mesh("default", enabledBackend="ca-3", backends=backends))
        until(
            "it changes the CA",
            lambda: "builtin/ca-3   complete" in cluster.kubectl("get", "meshes", "default").stdout,
            kuma.processes,
        )
        cluster.kubectl("delete", "mesh", "own")
        until("all of a mesh goes with it", lambda: not exists(cluster, "meshtrafficpermission", "web"), kuma.processes)
