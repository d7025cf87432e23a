"""Instances of a called service that come and go on live traffic; every request is a new connection of the client."""

import signal

import pytest

from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.integration.sidecars import Sidecars, more, traffic, until


@pytest.fixture
def declared() -> tuple[str, ...]:
    return (ALLOW_ALL,)


@pytest.mark.parametrize("changed_to", ["{type: Mesh, name: default}", MTLS], ids=["plaintext", "STRICT"])
@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_an_instance_joins_and_leaves_without_a_failed_request(
    cp: Running, mesh: Sidecars, protocol: str, changed_to: str
) -> None:
    await cp.apply(changed_to)
    await mesh.start("backend", protocol=protocol)
    web = await mesh.start("web", protocol=protocol, calls=("backend",))
    good: set[object] = {200} if protocol == "http" else {b"backend:hello", b"another:hello"}
    await until("web reaches backend", lambda: web.ask("backend"))
    async with traffic(lambda: web.ask("backend")) as answers:
        another = await mesh.start("another", protocol=protocol, service="backend")
        await more(answers)
        another.running.send_signal(signal.SIGTERM)
        assert await another.running.wait() == 0
        await more(answers, 100)
    assert set(answers) <= good, [answer for answer in answers if answer not in good]
    if protocol == "tcp":
        assert b"another:hello" in answers, "it has taken its part"
