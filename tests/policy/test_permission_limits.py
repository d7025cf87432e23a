"""How much the permissions of a mesh may ask of its proxies together."""

import pytest

from kuma.policy.permission_limits import violations
from kuma.policy.permissions import EVERYWHERE, Permissions, Place
from kuma.resources import codec, kinds, limits
from kuma.resources.tags import SERVICE

MOST = limits.PERMISSION_SELECTORS
WEB: Place = (SERVICE, "web")
ANY: Place = (SERVICE, "*")


def fields(before: Permissions, after: Permissions) -> list[str]:
    return [violation.field for violation in violations(before, after)]


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [(0, MOST, []), (0, MOST + 1, ["destinations"]), (MOST + 9, MOST + 8, []), (MOST + 9, MOST + 10, ["destinations"])],
)
def test_destinations_that_name_no_service(before: int, after: int, refused: list[str]) -> None:
    """What was too large before may become smaller step by step."""
    assert fields(Permissions(broad=before), Permissions(broad=after)) == refused


@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ({}, {WEB: limits.OF_ONE_SERVICE}, []),
        ({}, {WEB: limits.OF_ONE_SERVICE + 1}, ["spec"]),
        ({WEB: limits.OF_ONE_SERVICE + 2}, {WEB: limits.OF_ONE_SERVICE + 1}, []),
        ({}, {EVERYWHERE: limits.BROAD - 1, ANY: 1}, []),
        ({}, {EVERYWHERE: limits.BROAD - 1, ANY: 2}, ["spec"]),
        ({}, {EVERYWHERE: limits.BROAD, WEB: limits.OF_ONE_SERVICE}, []),
    ],
)
def test_callers_of_a_service_and_of_all(before: dict[Place, int], after: dict[Place, int], refused: list[str]) -> None:
    assert fields(Permissions(callers=before), Permissions(callers=after)) == refused


@pytest.mark.parametrize(
    ("destination", "broad"), [({SERVICE: "web"}, 0), ({SERVICE: "*"}, 1), ({"version": "v1", SERVICE: "*"}, 1)]
)
def test_a_destination_of_any_service_names_none(destination: dict[str, str], broad: int) -> None:
    source, target = [{"match": {SERVICE: "a"}}], [{"match": destination}]
    named = {"type": kinds.TRAFFIC_PERMISSION.name, "mesh": "default", "name": "p"}
    assert Permissions.of([codec.parse({**named, "sources": source, "destinations": target})], []).broad == broad
