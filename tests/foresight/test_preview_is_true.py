"""What a preview says would be refused is exactly what the generated configuration then refuses.

Random meshes, edits and recorded calls; the truth is read from what Envoys would be sent before and after the edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from kuma.foresight import preview, traffic
from kuma.foresight.preview import Known
from kuma.resources.models.observed_traffic import Edge, ObservedTrafficSpec
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes import envoy_rules
from tests.fakes.control_plane import resource
from tests.fakes.examples import examples
from tests.fakes.views import arrived

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVICES = ("web", "api", "db")
STRANGER = "10.9.9.9"
Call = tuple[str, str]
"""The caller's Dataplane, or the address of who has none, and the one that is called."""
MODES: Mapping[str, str] = {
    "off": "",
    "PERMISSIVE": ", mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin, mode: PERMISSIVE}]}",
    "STRICT": ", mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}",
}


class Declared(NamedTuple):
    """A mesh as somebody declares it: its mode, the tags of its Dataplanes, and its permissions."""

    mode: str
    dataplanes: Mapping[str, tuple[str, str]]
    permissions: Sequence[Resource[Any]]

    def resources(self) -> dict[Key, Resource[Any]]:
        found = [resource(f"{{type: Mesh, name: default{MODES[self.mode]}}}"), *self.permissions]
        for number, (name, (service, env)) in enumerate(sorted(self.dataplanes.items())):
            tags = f"kuma.io/service: {service}, kuma.io/protocol: http" + (f", env: {env}" if env else "")
            outbound = ", ".join(f"{{port: {90 + i}, tags: {{kuma.io/service: {s}}}}}" for i, s in enumerate(SERVICES))
            found.append(
                resource(
                    f"{{type: Dataplane, mesh: default, name: {name}, networking: {{address: 10.0.0.{number + 1}, "
                    f"inbound: [{{port: 80, servicePort: 8080, tags: {{{tags}}}}}], outbound: [{outbound}]}}}}"
                )
            )
        return {one.key: one for one in found}

    def view(self, after: Declared | None = None) -> MeshView:
        """The mesh; `after` another one what is not in that is created now, and the newest permission may decide."""
        older = after.resources() if after is not None else self.resources()
        made = {key: one if key in older else replace(one, creation_time=NOW) for key, one in self.resources().items()}
        return arrived(MeshView("default").following(made))


def selector(tags: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: '{value}'" for name, value in tags.items())


def legacy(name: str, sources: Sequence[Mapping[str, str]], destination: Mapping[str, str]) -> Resource[Any]:
    listed = ", ".join(f"{{match: {{{selector(one)}}}}}" for one in sources)
    return resource(
        f"{{type: TrafficPermission, mesh: default, name: {name}, sources: [{listed}], "
        f"destinations: [{{match: {{{selector(destination)}}}}}]}}"
    )


def targeting(name: str, target: str, callers: Sequence[tuple[str, str]]) -> Resource[Any]:
    items = ", ".join(
        f"{{targetRef: {{kind: MeshSubset, tags: {{{tags}}}}}, default: {{action: {action}}}}}"
        for tags, action in callers
    )
    ref = f"{{kind: MeshService, name: {target}}}" if target else "{kind: Mesh}"
    return resource(
        f"{{type: MeshTrafficPermission, mesh: default, name: {name}, spec: {{targetRef: {ref}, from: [{items}]}}}}"
    )


CALLER = st.sampled_from([{"kuma.io/service": s} for s in ("*", *SERVICES)] + [{"kuma.io/service": "*", "env": "dev"}])
TARGET = st.sampled_from([{"kuma.io/service": s} for s in ("*", *SERVICES)])
LEGACY = st.builds(legacy, st.sampled_from("ab"), st.lists(CALLER, min_size=1, max_size=2), TARGET)
TAGS = st.sampled_from([f"kuma.io/service: {s}" for s in SERVICES] + ["env: dev", "env: prod"])
ACTIONS = st.sampled_from(["Allow", "Deny", "AllowWithShadowDeny"])
TARGETING = st.builds(
    targeting, st.sampled_from("cd"), st.sampled_from(["", *SERVICES]),
    st.lists(st.tuples(TAGS, ACTIONS), min_size=1, max_size=3),
)  # fmt: skip
PERMISSIONS = st.lists(LEGACY | TARGETING, max_size=3, unique_by=lambda one: one.key)
DATAPLANES = st.dictionaries(
    st.sampled_from([f"d{n}" for n in range(4)]),
    st.tuples(st.sampled_from(SERVICES), st.sampled_from(["", "dev", "prod"])),
    min_size=1,
)
MESHES = st.builds(Declared, st.sampled_from(sorted(MODES)), DATAPLANES, PERMISSIONS)


def admitted(view: MeshView, call: Call) -> bool:
    """What Envoy does by what it is sent: the rules of the route, or that it asks for no certificate at all."""
    caller, called = call
    level, config = view.position.level, MeshConfig(view)
    if level == 0 or caller == STRANGER:
        return level < 3
    (entry,) = (e for n, e in config.snapshot(called, {})[TypeUrl.ROUTES].items() if n.startswith("inbound:"))
    routes = route_pb2.RouteConfiguration.FromString(discovery_pb2.Resource.FromString(entry.wire).resource.value)
    rule = rbac_pb2.RBACPerRoute()
    routes.virtual_hosts[0].routes[0].typed_per_filter_config["envoy.filters.http.rbac"].Unpack(rule)
    return envoy_rules.lets_in(rule.rbac.rules, list(config.uris(caller)))


def recorded(view: MeshView, calls: Sequence[Call]) -> traffic.Observed:
    """What the proxies would have reported of these calls."""
    level, found = view.position.level, dict[str, list[Edge]]()
    for caller, called in calls:
        service = view.dataplanes[called].spec.services[0]
        by_tls = level > 0 and caller != STRANGER
        known = view.dataplanes.get(caller)
        edge = Edge(
            service=service,
            port=80,
            how="meshTls" if by_tls else "plaintext",
            outcome=("allowed" if admitted(view, (caller, called)) else "refused") if level else "unchecked",
            first=NOW,
            last=NOW,
            uris=MeshConfig(view).uris(caller) if by_tls else (),
            address="" if by_tls else known.spec.net.address if known else STRANGER,
            connections=1,
        )
        found.setdefault(called, []).append(edge)
    return {called: ObservedTrafficSpec(since=NOW - timedelta(days=9), edges=tuple(e)) for called, e in found.items()}


@examples(300)
@given(before=MESHES, after=MESHES, data=st.data())
def test_who_is_refused_after_an_edit_is_who_was_said_to_be(before: Declared, after: Declared, data: Any) -> None:
    # Whose Dataplane goes or comes calls nobody meanwhile; a service that moves is another matter, looked at elsewhere.
    stays = {name: (before.dataplanes[name][0], env) for name, (_, env) in after.dataplanes.items()
             if name in before.dataplanes}  # fmt: skip
    whole = {**before.dataplanes, **stays}
    old, new = before.view(), after._replace(dataplanes=whole).view(before)
    callers = st.sampled_from([*before.dataplanes, STRANGER])
    calls = data.draw(st.lists(st.tuples(callers, st.sampled_from(sorted(before.dataplanes))), unique=True, max_size=6))

    changes = {**dict.fromkeys(before.resources()), **after._replace(dataplanes=whole).resources()}
    observed = recorded(old, calls)
    known = Known(traffic.callers(old, observed, NOW), traffic.summary(old, observed, NOW), {}, NOW)
    found = preview.preview(old, changes, known)

    said = {
        (name, c.dataplane) for c in found.callers if c.seen and c.effect == "refused"
        for name in (c.dataplanes or (STRANGER,))
    }  # fmt: skip
    # Of those whose certificates are the same, it is not known which one has called.
    alike = {(other, called) for caller, called in calls for other in _alike(old, caller)}
    assert said == {call for call in alike if admitted(old, call) and not admitted(new, call)}
    let_in = {
        (name, c.dataplane) for c in found.callers if c.seen and c.effect == "admitted"
        for name in (c.dataplanes or (STRANGER,))
    }  # fmt: skip
    assert let_in == {call for call in alike if admitted(new, call) and not admitted(old, call)}
    assert found.breaks == bool(said) or found.unobserved_total


def _alike(view: MeshView, caller: str) -> list[str]:
    if caller == STRANGER or view.position.level == 0:
        return [caller]
    config = MeshConfig(view)
    return [name for name in view.dataplanes if config.uris(name) == config.uris(caller)]
