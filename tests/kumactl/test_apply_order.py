"""The order in which resources that come together are sent."""

from collections.abc import Sequence, Set

from kuma.kumactl.apply_order import Sending, rounds
from kuma.resources import codec
from kuma.resources.models.mesh import AUTHORITY_LABEL, AWAITED
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource

MESH, PERMISSION = resource(MTLS), resource(ALLOW_ALL)
CERT, KEY, OTHER = (resource(f"{{type: Secret, mesh: default, name: {name}, data: eA==}}") for name in "abc")
SIGNING_KEY = resource("{type: GlobalSecret, name: user-token-signing-key-1, data: eA==}")
GLOBAL = resource("{type: GlobalSecret, name: other, data: eA==}")
WEB = dataplane("web-01", "web")


def told(found: Sequence[Sequence[Sending]]) -> list[tuple[str, bool]]:
    return [(sending.resource.name, sending.again) for one in found for sending in one]


def names(found: Sequence[Sequence[Sending]]) -> list[str]:
    return [name for name, _ in told(found)]


def test_into_a_mesh_that_exists_secrets_and_permissions_come_before_it() -> None:
    found = rounds([WEB, SIGNING_KEY, MESH, PERMISSION, GLOBAL, CERT], {"default"})
    assert told(found) == [
        ("other", False), ("a", False), ("allow-all", True), ("default", False), ("web-01", False),
        ("allow-all", False), ("user-token-signing-key-1", False),
    ]  # fmt: skip


def test_a_mesh_that_does_not_exist_is_created_as_it_is_meant_and_waits_for_its_secrets() -> None:
    found = rounds([CERT, KEY, MESH, PERMISSION], set[str]())
    assert told(found) == [
        ("default", True), ("a", True), ("b", False), ("a", False), ("allow-all", False), ("default", False),
    ]  # fmt: skip
    first, last = found[0][0].resource, found[-1][-1].resource
    assert first.spec == last.spec == MESH.spec, "never without the mutual TLS that it is meant to have"
    assert first.labels == {AUTHORITY_LABEL: AWAITED}
    assert last == MESH


def test_a_mesh_is_sent_again_only_for_what_its_companions_change() -> None:
    assert told(rounds([MESH], set[str]())) == [("default", False)]
    assert told(rounds([MESH, WEB], set[str]())) == [("default", False), ("web-01", False)]
    found = rounds([MESH, PERMISSION], set[str]())
    assert told(found) == [("default", True), ("allow-all", False), ("default", False)]
    assert found[0][0].resource.labels == {AUTHORITY_LABEL: AWAITED}
    bare = codec.parse({"type": "Mesh", "name": "default"})
    assert told(rounds([bare, CERT], set[str]())) == [("default", False), ("a", False)]
    assert told(rounds([bare, PERMISSION], set[str]())) == [("default", False), ("allow-all", False)]


def test_secrets_of_one_mesh_are_looked_at_again_when_all_are_there() -> None:
    meshes: Set[str] = {"default", "other"}
    alone = resource("{type: Secret, mesh: other, name: alone, data: eA==}")
    found = rounds([CERT, alone, KEY, OTHER], meshes)
    assert told(found) == [
        ("a", True), ("alone", False), ("b", True), ("c", False), ("a", False), ("b", False),
    ]  # fmt: skip
