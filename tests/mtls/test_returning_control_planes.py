"""A control plane that said nothing for a while, and was taken to be gone, is one of them again when it comes back."""

import asyncio
from collections.abc import Sequence

from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec
from kuma.xds.envoy.services import serving_label
from tests.fakes.control_plane import MTLS, OTHER_CA, dataplane
from tests.fakes.patience import PATIENCE
from tests.fakes.several import Several

WEB = dataplane("web-01", "web")


def transition(found: Several, number: int) -> MeshTransitionSpec:
    view = found.planes[number].parts.views.view("default")
    return view.transition.spec if view.transition else MeshTransitionSpec()


async def insight(found: Several) -> DataplaneInsightSpec:
    stored = await found.planes[0].parts.manager.find(kinds.DATAPLANE_INSIGHT.key("web-01", "default"))
    return stored.spec if stored is not None else DataplaneInsightSpec()


async def shown_as(found: Several, *, online: bool, paused: Sequence[int] = ()) -> None:
    """Return once the proxy is shown as connected, or not; time goes on for all but those who are paused."""
    async with asyncio.timeout(PATIENCE):
        while (await insight(found)).online is not online:
            await found.later(1, paused=paused)


async def test_what_was_removed_of_one_that_was_silent_is_said_again(two: Several) -> None:
    leader, silent = two.leader, 1 - two.leader
    await two.planes[silent].proxy(WEB)
    await two.planes[leader].apply(MTLS)
    await two.until(lambda: all(transition(two, number).complete for number in range(2)))
    await shown_as(two, online=True)
    name = two.coordination[silent].own
    await two.until(lambda: two.coordination[leader].version_of(name) == 0, paused=[silent])
    await shown_as(two, online=False, paused=[silent])
    await two.met()
    await two.until(lambda: (name, "default") in two.coordination[leader].progress())
    await shown_as(two, online=True)
    await two.planes[leader].apply(OTHER_CA)
    await two.until(
        lambda: all(
            transition(two, number).complete and transition(two, number).goal.endswith("ca-2") for number in range(2)
        )
    )
    assert transition(two, leader).position.level is Level.STRICT


async def test_its_proxies_have_callers_again_however_long_it_was_silent(two: Several) -> None:
    leader, silent = two.leader, 1 - two.leader
    web = await two.planes[silent].proxy(WEB)
    await two.planes[leader].apply(MTLS)
    await two.until(lambda: all(transition(two, number).complete for number in range(2)))

    def serves() -> bool:
        found = two.planes[leader].parts.views.view("default").dataplanes.get("web-01")
        return found is not None and serving_label.is_serving(found)

    await two.until(serves)
    await two.until(lambda: not serves(), paused=[silent], step=1)
    await two.met()
    await two.until(serves)
    assert web.connected
