"""What proxies run for traffic that the kernel brings to them."""

import json
from typing import Any

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kuma.base.errors import InvalidResource
from kuma.policy.caller_groups import group
from kuma.resources import codec, kinds
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import ALLOW_ALL, MTLS, resource
from tests.fakes.views import arrived

REDIRECTED = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}
CATCH_ALL = {f"{direction}:passthrough:ipv{version}" for direction in ("inbound", "outbound") for version in (4, 6)}


def dataplane(
    name: str, address: str, service: str, redirected: Any = REDIRECTED, port: int = 80, *,
    at: tuple[str, ...] = (), also: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    tags = {"kuma.io/service": service, "kuma.io/protocol": "http"}
    tags |= {f"k8s.kuma.io/address.{place}": service for place in at}
    tags |= {f"k8s.kuma.io/also-at.{address}": name for address in also}
    networking = {"address": address, "inbound": [{"port": port, "tags": tags}], "transparentProxying": redirected}
    return codec.parse({"type": "Dataplane", "mesh": "default", "name": name, "networking": networking})


def view(*dataplanes: Resource[Any], mesh: str = MTLS) -> MeshView:
    found = MeshView("default")
    for one in (resource(mesh), resource(ALLOW_ALL), *dataplanes):
        found = found.having(one)
    return arrived(found)


def listeners(config: MeshConfig, name: str) -> dict[str, listener_pb2.Listener]:
    entries = config.snapshot(name, {})[TypeUrl.LISTENER]
    wire = {n: discovery_pb2.Resource.FromString(entry.wire).resource.value for n, entry in entries.items()}
    return {n: listener_pb2.Listener.FromString(value) for n, value in wire.items()}


def chains(found: listener_pb2.Listener) -> list[str]:
    return [chain.name for chain in found.filter_chains]


WEB, DB = dataplane("web", "10.0.0.1", "web"), dataplane("db", "10.0.0.2", "db")


def test_inbounds_and_the_places_of_others_are_found_by_what_was_meant() -> None:
    found = listeners(MeshConfig(view(WEB, DB)), "web")
    assert found.keys() == {"inbound:10.0.0.1:80", "outbound:10.0.0.2:80", *CATCH_ALL}
    for name, listener in found.items():
        is_bound = listener.bind_to_port.value or not listener.HasField("bind_to_port")
        assert (is_bound, listener.use_original_dst.value) == (name in CATCH_ALL, name in CATCH_ALL), name


def offers_its_group(found: listener_pb2.Listener) -> bool:
    return any(link.name.endswith("set_filter_state") for chain in found.filter_chains for link in chain.filters)


def test_who_has_no_outbound_to_a_service_does_not_call_it_as_one_of_a_group_that_it_knows() -> None:
    """Of 256 groups it may be in that of a caller which the service has a chain for: it would be refused there."""
    like_web = next(f"x{n}" for n in range(10_000) if group((f"x{n}",)) == group(("web",)))
    known = json.loads(json.dumps(codec.to_universal(WEB)))
    known["networking"]["outbound"] = [{"port": 1234, "tags": {"kuma.io/service": "db"}}]
    config = MeshConfig(view(codec.parse(known), DB, dataplane("other", "10.0.0.3", like_web)))
    assert any(
        chain.endswith(f"_{group(('web',))}") for chain in chains(listeners(config, "db")["inbound:10.0.0.2:80"])
    )
    assert not offers_its_group(listeners(config, "other")["outbound:10.0.0.2:80"])
    assert offers_its_group(listeners(config, "web")["outbound:10.0.0.2:80"])
    assert offers_its_group(listeners(config, "web")["outbound:127.0.0.1:1234"])


def test_what_this_machine_sends_is_taken_on_the_loopback_only() -> None:
    found = listeners(MeshConfig(view(WEB)), "web")
    assert found["outbound:passthrough:ipv4"].address.socket_address.address == "127.0.0.1"
    assert found["outbound:passthrough:ipv6"].address.socket_address.address == "::1"


def test_what_is_no_inbound_passes_until_mutual_tls_is_strict() -> None:
    for mesh, passes in (
        (MTLS, False),
        (MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE"), True),
        ("{type: Mesh, name: default}", True),
    ):
        found = listeners(MeshConfig(view(WEB, mesh=mesh)), "web")
        for version in (4, 6):
            assert ("passthrough" in chains(found[f"inbound:passthrough:ipv{version}"])) is passes
            assert "passthrough" in chains(found[f"outbound:passthrough:ipv{version}"])


def test_a_mesh_without_passthrough_lets_nothing_out() -> None:
    mesh = MTLS[:-1] + ", networking: {outbound: {passthrough: false}}}"
    found = listeners(MeshConfig(view(WEB, mesh=mesh)), "web")
    assert "passthrough" not in chains(found["outbound:passthrough:ipv4"])
    (warning,) = kinds.MESH.warnings(resource(mesh).spec)
    assert "networking.outbound.passthrough" in warning


def test_an_inbound_that_is_withheld_is_not_reached_in_plaintext_either() -> None:
    plain = view(WEB, mesh="{type: Mesh, name: default}")
    found = listeners(MeshConfig(plain, withheld={"web": {0: "it leads to somebody else"}}), "web")
    assert "inbound:10.0.0.1:80" not in found
    assert "nowhere:80" in chains(found["inbound:passthrough:ipv4"])


def test_only_services_that_are_named_are_called_as_a_part_of_the_mesh() -> None:
    web = dataplane("web", "10.0.0.1", "web", {**REDIRECTED, "reachableServices": ["cache"]})
    cache = dataplane("cache", "10.0.0.3", "cache")
    assert "outbound:10.0.0.2:80" not in listeners(MeshConfig(view(web, DB, cache)), "web")
    before = MeshConfig(view(web, DB, cache))
    moved = MeshConfig(before.view.having(dataplane("db", "10.0.0.9", "db")), before)
    assert "web" not in moved.affected_since(before)


def test_a_proxy_that_comes_or_goes_concerns_all_that_may_call_it_and_nobody_else() -> None:
    quiet = dataplane("quiet", "10.0.0.8", "quiet", {"redirectPortInbound": 15006})
    before = MeshConfig(view(WEB, DB, quiet))
    more = MeshConfig(before.view.having(dataplane("db-2", "10.0.0.3", "db")), before)
    assert more.affected_since(before) == {"web", "db", "db-2"}
    assert "outbound:10.0.0.3:80" in listeners(more, "web")
    less = MeshConfig(before.view, more)
    assert "web" in less.affected_since(more)
    assert "outbound:10.0.0.3:80" not in listeners(less, "web")


def leads_to(config: MeshConfig, name: str, place: str) -> str:
    """The cluster that a listener of HTTP leads to, by its statistics."""
    packed = listeners(config, name)[f"outbound:{place}"].filter_chains[0].filters[-1].typed_config
    manager = hcm_pb2.HttpConnectionManager.FromString(packed.value)
    return str(manager.stat_prefix)


def kubernetes(found: MeshView, previous: MeshConfig | None = None) -> MeshConfig:
    return MeshConfig(found, previous, has_service_addresses=True)


def test_the_address_of_a_service_leads_to_all_its_proxies() -> None:
    one = dataplane("db-1", "10.0.0.2", "db", at=("10.96.0.5:80", "fd00::5:80"))
    two = dataplane("db-2", "10.0.0.3", "db", at=("10.96.0.5:80", "fd00::5:80"))
    found = view(WEB, one, two)
    for place in ("10.96.0.5:80", "[fd00::5]:80"):
        assert leads_to(kubernetes(found), "web", place) == "db"
    assert "db" in kubernetes(found).snapshot("web", {})[TypeUrl.ENDPOINTS]
    assert not [
        name for name in listeners(MeshConfig(found), "web") if "10.96.0.5" in name
    ]  # not where users write them


def test_who_says_that_it_is_at_the_address_of_a_service_is_not_believed() -> None:
    one = dataplane("db-1", "10.0.0.2", "db", at=("10.96.0.5:80",))
    thief = dataplane("thief", "10.96.0.5", "aaa")
    assert leads_to(kubernetes(view(WEB, one, thief)), "web", "10.96.0.5:80") == "db"


def test_the_address_of_a_part_of_a_service_leads_to_that_part() -> None:
    one = dataplane("db-1", "10.0.0.2", "db", at=("10.96.0.5:80",))
    two = dataplane("db-2", "10.0.0.3", "db", at=("10.96.0.5:80", "10.96.0.9:80"))
    config = kubernetes(view(WEB, one, two))
    assert leads_to(config, "web", "10.96.0.5:80") == "db"
    part = leads_to(config, "web", "10.96.0.9:80")
    (name,) = (name for name in config.snapshot("web", {})[TypeUrl.ENDPOINTS] if resource_names.stat_name(name) == part)
    entry = config.snapshot("web", {})[TypeUrl.ENDPOINTS][name]
    assigned = endpoint_pb2.ClusterLoadAssignment.FromString(
        discovery_pb2.Resource.FromString(entry.wire).resource.value
    )
    hosts = [host.endpoint.address.socket_address.address for host in assigned.endpoints[0].lb_endpoints]
    assert hosts == ["10.0.0.3"]


def test_nobody_takes_the_place_of_a_pod_by_saying_to_be_there() -> None:
    """As a Dataplane made by hand may, whose host name has the address of a Pod: it cannot say what only we write."""
    pod = dataplane("pod", "10.0.0.2", "web-of-pods")
    tags = {**pod.spec.net.inbound[0].tags, "k8s.kuma.io/namespace": "shop"}
    inbound = pod.spec.net.inbound[0].model_copy(update={"tags": tags})
    networking = pod.spec.net.model_copy(update={"inbound": (inbound,)})
    pod = pod.with_spec(pod.spec.model_copy(update={"networking": networking}))
    claims = [dataplane(name, "10.0.0.2", name) for name in ("aaa", "zzz")]
    config = kubernetes(view(WEB, *claims, pod))
    entry = config.snapshot("web", {})[TypeUrl.LISTENER]["outbound:10.0.0.2:80"]
    assert resource_names.direct("web-of-pods").encode() in entry.wire
    assert resource_names.direct("aaa").encode() not in entry.wire


def test_who_calls_a_service_by_its_address_follows_its_proxies() -> None:
    before = kubernetes(view(WEB, dataplane("db-1", "10.0.0.2", "db", at=("10.96.0.5:80",))))
    assert before.snapshot("web", {})
    moved = kubernetes(before.view.having(dataplane("db-1", "10.0.0.7", "db", at=("10.96.0.5:80",))), before)
    assert "web" in moved.affected_since(before)
    new, old = (config.snapshot("web", {})[TypeUrl.ENDPOINTS]["db"] for config in (moved, before))
    assert new != old


@pytest.mark.parametrize("text", ["x", "10.96.0.5", "10.96.0.5:0", "10.96.0.5:70000", "127.0.0.1:80", ":80", "::1:80"])
def test_what_is_no_address_leads_nowhere(text: str) -> None:
    config = kubernetes(view(WEB, dataplane("db-1", "10.0.0.2", "db", at=(text,))))
    assert {n for n in listeners(config, "web") if n.startswith("outbound:1")} == {"outbound:10.0.0.2:80"}


def test_one_version_of_ip() -> None:
    web = dataplane("web", "10.0.0.1", "web", {**REDIRECTED, "ipFamilyMode": "IPv4"})
    assert not [name for name in listeners(MeshConfig(view(web)), "web") if name.endswith("ipv6")]


@pytest.mark.parametrize(
    ("redirected", "port", "field"),
    [
        ({"redirectPortInbound": 70000}, 80, "networking.transparentProxying.redirectPortInbound"),
        (
            {"redirectPortInbound": 1, "redirectPortOutbound": 1},
            80,
            "networking.transparentProxying.redirectPortOutbound",
        ),
        (REDIRECTED, 15006, "networking.inbound[0].port"),
        ({"redirectPortOutbound": 15001}, 80, "networking.inbound[0].servicePort"),
        ({"redirectPort": 1}, 80, "networking.transparentProxying.redirectPort"),
    ],
)
def test_what_cannot_be_is_refused_by_name(redirected: Any, port: int, field: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        dataplane("web", "10.0.0.1", "web", redirected, port)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_dual_stack_pod_is_called_at_its_second_address_too_and_does_not_call_itself_there() -> None:
    """By who means that address; callers of the service are sent to the first one, as before."""
    pods = dataplane("web", "10.0.0.1", "web", also=("fd00::1",)), dataplane("db", "10.0.0.2", "db", also=("fd00::2",))
    config = MeshConfig(view(*pods), has_service_addresses=True)
    found = listeners(config, "web")
    here = {"inbound:10.0.0.1:80", "inbound:[fd00::1]:80"}
    assert found.keys() - CATCH_ALL == here | {"outbound:10.0.0.2:80", "outbound:[fd00::2]:80"}
    assert [found[name].address.socket_address.address for name in sorted(here)] == ["10.0.0.1", "fd00::1"]


def test_a_pod_that_gets_a_second_address_keeps_the_listener_of_its_first_one() -> None:
    """Envoy refuses a listener that gets or loses addresses, and whatever is sent with it."""
    alone, both = (dataplane("web", "10.0.0.1", "web", also=also) for also in ((), ("fd00::1",)))
    of_one, of_both = (listeners(MeshConfig(view(one), has_service_addresses=True), "web") for one in (alone, both))
    assert of_both.keys() - of_one.keys() == {"inbound:[fd00::1]:80"}
    assert of_one["inbound:10.0.0.1:80"] == of_both["inbound:10.0.0.1:80"]


def test_nobody_takes_an_address_of_another_by_being_there_also() -> None:
    """Where only the control plane says so; elsewhere it means nothing."""
    thief = dataplane("aaa", "10.0.0.3", "aaa", also=("10.0.0.2", "127.0.0.1", "nowhere"))
    with_thief = MeshConfig(view(WEB, DB, thief), has_service_addresses=True)
    assert with_thief._places["db"].places == (("10.0.0.2", 80),)
    assert with_thief._places["aaa"].places == (("10.0.0.3", 80),)
    elsewhere = MeshConfig(view(WEB, DB, dataplane("aaa", "10.0.0.3", "aaa", also=("fd00::3",))))
    assert elsewhere._places["aaa"].places == (("10.0.0.3", 80),)
    assert [name for name in listeners(elsewhere, "aaa") if name.startswith("inbound:1")] == ["inbound:10.0.0.3:80"]
