"""Host names in Dataplanes: what proxies run has addresses, which follow the name service; what is stored has names."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from kuma.base import aio
from kuma.base.errors import InvalidResource
from kuma.base.system.name_service import NameService
from kuma.resources import codec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from kuma.xds.proxies.host_names import HostNames
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.fakes.patience import PATIENCE

UNKNOWN = "cannot be resolved: Name or service not known"


def dataplane(address: str = "web.local", name: str = "web-01", more: Any = (), **inbound: Any) -> Resource[Any]:
    served = {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}, **inbound}
    networking = {"address": address, "inbound": [served], **dict(more)}
    return codec.parse({"type": "Dataplane", "mesh": "default", "name": name, "networking": networking})


class Names:
    """Host names of one view after another, and a name service that answers what a test says."""

    def __init__(self, **known: Sequence[str]) -> None:
        self.known = {name.replace("_", "."): found for name, found in known.items()}
        self.answered: list[str] = []
        self.clock = ManualClock()
        self.registry = CollectorRegistry()
        self.names = HostNames(self.clock, 10, Gauge("unresolved", "", registry=self.registry), self._resolve)
        self.told: list[frozenset[str]] = []
        self.names.on_change(self.told.append)
        self.view = MeshView("default")
        self.silent = asyncio.Event()
        """Until then there is no answer about silent.local."""

    async def _resolve(self, name: str) -> Sequence[str]:
        if name == "silent.local":
            await self.silent.wait()
        self.answered.append(name)
        if name == "silent.local":
            raise TimeoutError("no answer")
        if name not in self.known:
            raise OSError(-2, "Name or service not known")
        return self.known[name]

    def see(self, *resources: Resource[Any]) -> None:
        for each in resources:
            self.view = self.view.having(each)
        self.names.seen(self.view)

    @property
    def address(self) -> str:
        return str(self.names.seen(self.view).dataplanes["web-01"].spec.net.address)

    @property
    def withheld(self) -> dict[int, str]:
        return dict(self.names.withheld("default").get("web-01", {}))

    @property
    def failing(self) -> float | None:
        return self.registry.get_sample_value("unresolved")

    async def answers(self, times: int) -> None:
        """Returns once so many questions have been answered, and what follows from them is done."""
        async with asyncio.timeout(PATIENCE):
            while len(self.answered) < times or not self.clock.sleepers:
                await asyncio.sleep(0)

    async def again(self) -> None:
        """Lets the time of the answers go by."""
        before = len(self.answered)
        self.clock.advance(10)
        await self.answers(before + 1)


@contextlib.asynccontextmanager
async def names(**known: Sequence[str]) -> AsyncIterator[Names]:
    found = Names(**known)
    task = aio.spawn(found.names.run(), name="host names")
    try:
        yield found
    finally:
        await aio.stop([task])


async def test_a_name_is_resolved_and_followed_and_its_last_address_kept() -> None:
    async with names(web_local=["fd00::1", "10.0.0.1", "10.0.0.2"]) as found:
        found.see(dataplane())
        assert found.withheld == {0: 'networking.address: "web.local" is being resolved'}
        await found.answers(1)
        assert (found.address, found.withheld, found.told) == ("10.0.0.1", {}, [frozenset({"default"})])
        found.known["web.local"] = ["10.0.0.2", "10.0.0.1"]
        await found.again()
        assert (found.address, len(found.told)) == ("10.0.0.1", 1), "as long as the name has it"
        found.known["web.local"] = ["10.0.0.3"]
        await found.again()
        assert (found.address, len(found.told)) == ("10.0.0.3", 2)
        del found.known["web.local"]
        await found.again()
        assert (found.address, found.withheld, found.failing) == ("10.0.0.3", {}, 1), "the last one is kept"
        assert found.names.failures("default", "web-01") == [f'"web.local" {UNKNOWN}']
        found.known["web.local"] = ["10.0.0.3"]
        await found.again()
        assert (found.failing, found.names.failures("default", "web-01")) == (0, [])


async def test_what_has_no_address_is_not_served_and_the_reason_is_told() -> None:
    async with names(web_local=["10.0.0.1"]) as found:
        found.see(dataplane(more={"advertisedAddress": "web.example"}, serviceAddress="app.local"))
        await found.answers(3)
        assert found.withheld == {0: f'networking.advertisedAddress: "web.example" {UNKNOWN}'}
        config = MeshConfig(found.names.seen(found.view), withheld=found.names.withheld("default"))
        assert not config.snapshot("web-01", {}, 9901)[TypeUrl.LISTENER].keys() & {"inbound:10.0.0.1:80"}
        found.see(dataplane())
        assert found.withheld == {}
        assert found.view.dataplanes["web-01"].spec.net.address == "web.local", "what is stored stays as it is"


@pytest.mark.parametrize(
    ("answer", "inbound", "reason"),
    [
        (["0.0.0.0"], {}, "networking.address: must not be 0.0.0.0 or ::"),
        (["10.0.0.1"], {"serviceAddress": "10.0.0.1", "servicePort": 80}, "has to differ from address and port"),
        ([], {}, 'networking.address: "web.local" cannot be resolved: it has no address'),
    ],
)
async def test_an_address_with_which_a_dataplane_breaks_a_rule_is_not_served(
    answer: Sequence[str], inbound: dict[str, Any], reason: str
) -> None:
    async with names(web_local=answer) as found:
        found.see(dataplane(**inbound))
        await found.answers(1)
        assert reason in found.withheld[0]


async def test_names_that_are_gone_are_asked_no_more_and_meshes_without_names_are_left_alone() -> None:
    async with names(web_local=["10.0.0.1"]) as found:
        found.see(dataplane())
        await found.answers(1)
        found.see(dataplane("10.0.0.9"))
        assert found.names.seen(found.view) is found.view
        found.see(dataplane("other.local", name="other"))
        await found.answers(2)
        await found.again()
        assert found.answered == ["web.local", "other.local", "other.local"]


@pytest.mark.parametrize("text", ["10.0.0.256", "1.2.3", "a..b", "-web", "web local", "x" * 64, "web/1", "10.0.0.1:80"])
@pytest.mark.parametrize("field", ["address", "serviceAddress", "advertisedAddress"])
def test_what_is_no_host_name_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        if field == "address":
            dataplane(text)
        elif field == "serviceAddress":
            dataplane("10.0.0.1", serviceAddress=text)
        else:
            dataplane("10.0.0.1", more={field: text})
    (violation,) = caught.value.violations
    assert violation.field.endswith(f".{field}")
    assert violation.reason.endswith("address has to be valid IP address or domain name") or (
        violation.reason == "serviceAddress has to be valid IP address or domain name"
    )


async def test_the_system_knows_itself() -> None:
    system = NameService()
    assert "127.0.0.1" in await system.resolve("localhost")
    with pytest.raises(OSError, match=r"(?i)name|resol|answer|node"):
        await system.resolve("nobody.invalid")


async def test_names_that_are_never_answered_keep_nothing_else_from_a_thread() -> None:
    answer, asked = threading.Event(), list[str]()

    def ask(name: str) -> Sequence[str]:
        asked.append(name)
        if name != "web.local":
            answer.wait(PATIENCE)
        return [name]

    service = NameService(ask, seconds=0.05, at_once=40)
    try:
        for name in (*(f"{number}.silent" for number in range(39)), "0.silent"):  # as many as nobody else could have
            with pytest.raises(TimeoutError, match="no answer within"):
                await service.resolve(name)
        assert len(asked) == 39, "the one that is open is not asked again"
        assert await asyncio.to_thread(lambda: "done") == "done"
        assert await NameService(ask).resolve("web.local") == ["web.local"]
        waiting = [aio.spawn(service.resolve(name), name=name) for name in ("web.local", "also.local")]
    finally:
        answer.set()
    assert (await waiting[0], await waiting[1]) == (["web.local"], ["also.local"]), "once there is a thread again"


async def test_addresses_are_told_while_others_are_waited_for_and_who_is_silent_is_asked_less_often() -> None:
    async with names(web_local=["10.0.0.1"]) as found:
        found.silent = asyncio.Event()
        found.see(dataplane(), dataplane("silent.local", name="silent"))
        async with asyncio.timeout(PATIENCE):
            while found.address != "10.0.0.1":
                await asyncio.sleep(0.01)
        assert found.told == [frozenset({"default"})]
        found.silent.set()
        await found.answers(2)
        assert found.names.failures("default", "silent") == ['"silent.local" cannot be resolved: no answer']
        for silent_ones in (1, 2, 2, 2, 2, 3):  # after 20 seconds, and then after 40
            await found.again()
            assert found.answered.count("silent.local") == silent_ones


async def test_a_name_that_leads_where_an_inbound_may_not_lead_is_withheld(cp: Running) -> None:
    """It is judged by its address: a name may be anywhere, and elsewhere later."""
    await cp.apply(MTLS, ALLOW_ALL)
    described = dataplane("10.0.0.1", serviceAddress="localhost", servicePort=await cp.api_port())
    proxy = await cp.proxy(described)
    found = await cp.insight(described, lambda insight: insight.withheld_inbounds)
    (reason,) = found.withheld_inbounds
    assert "127.0.0.1" in reason
    assert "this control plane" in reason
    named = dataplane("nobody.invalid")
    await cp.apply_resource(named)
    shown = await cp.insight(
        named, lambda insight: insight.unresolved_names and "cannot be" in str(insight.withheld_inbounds)
    )
    assert shown.unresolved_names[0].startswith('"nobody.invalid" cannot be resolved: ')
    assert shown.withheld_inbounds[0].startswith('networking.address: "nobody.invalid" cannot be resolved: ')
    assert "inbound:10.0.0.1:80" not in proxy.held[TypeUrl.LISTENER]
