"""A worker that alone is cut off from the store leaves proxies to others, and requests to whoever shares its ports."""

from __future__ import annotations

from kuma.api.http.server import HttpServer
from kuma.app.serving.doors import Doors
from kuma.xds.stream.front import Front, FrontLimits


async def _nothing(*_: object) -> None:
    """Answers nothing."""


def test_only_a_worker_whose_sibling_can_use_the_store_leaves_it_its_requests() -> None:
    front, server = Front(FrontLimits()), HttpServer(_nothing, "127.0.0.1", 0, setting="X")
    doors = Doors(front)
    doors.add([server])

    def shut() -> tuple[bool, bool]:
        return front.is_shut, server.is_shut

    doors.sibling_can(True)
    assert shut() == (False, False), "nobody is cut off"
    doors.cut_off(True)
    assert shut() == (True, True)
    doors.sibling_can(False)
    assert shut() == (True, False), "whoever asks here is to be answered by somebody"
    doors.sibling_can(True)
    assert shut() == (True, True)
    doors.cut_off(False)
    assert shut() == (False, False)
