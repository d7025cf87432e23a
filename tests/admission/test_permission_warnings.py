"""Permissions are answered with what their writers should know of them."""

from __future__ import annotations

from pathlib import Path

from kuma.admission.permission_rules import PermissionRules
from kuma.base.turns import Turns
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource, running


def by_identity(*values: str) -> str:
    allow = ", ".join(f'{{spiffeID: {{type: Exact, value: "{value}"}}}}' for value in values)
    return (
        f"{{type: MeshTrafficPermission, mesh: default, name: p, spec: {{rules: [{{default: {{allow: [{allow}]}}}}]}}}}"
    )


async def test_an_identity_that_nobody_in_the_mesh_has_is_warned_of(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        await cp.apply_resource(dataplane("web-01", "web"))
        known = await cp.parts.manager.put(resource(by_identity("spiffe://default/web")))
        assert known.warnings == ()
        foreign = [f"spiffe://default.zone-1.mesh.local/ns/shop/sa/web-{number}" for number in range(7)]
        first, *_, last = (await cp.parts.manager.put(resource(by_identity(*foreign)))).warnings
        assert first == (
            f"spec.rules[0].default.allow[0].spiffeID: nobody in mesh default is {foreign[0]}: "
            "identities here are spiffe://default/<service>"
        )
        assert last == "the same holds for 2 more SPIFFE IDs"
        named = (await cp.parts.manager.put(resource(by_identity(*foreign[:5])))).warnings
        assert len(named) == 5
        assert foreign[4] in named[-1]


async def test_services_that_are_not_there_are_warned_of_apart_from_the_rest(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        unknown = [f"spiffe://default/unknown-{number}" for number in range(7)]
        assert (await cp.parts.manager.put(resource(by_identity(*unknown)))).warnings == (), "nobody is there at all"
        await cp.apply_resource(dataplane("web-01", "web"))
        outcome = await cp.parts.manager.put(resource(by_identity(*unknown)))
        assert outcome.warnings == outcome.absences
        assert len(outcome.absences) == 6
        assert outcome.absences[-1] == "the same holds for 2 more selectors"
        named = (await cp.parts.manager.put(resource(by_identity(*unknown[:5])))).absences
        assert len(named) == 5
        assert "unknown-4" in named[-1]


async def test_what_callers_lose_is_looked_at_for_a_bounded_number_of_inbounds_and_that_is_told(tmp_path: Path) -> None:
    narrower = resource(
        ALLOW_ALL.replace("allow-all", "web-only").replace("kuma.io/service: '*'", "kuma.io/service: web")
    )
    async with running(tmp_path) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        for number in range(3):
            await cp.apply_resource(dataplane(f"web-{number}", "web", port=80 + number))
        for most, is_told in ((3, False), (2, True)):
            rules = PermissionRules(cp.parts.views, Turns(), looked_at=most)
            lost, *more = (await rules.on_put(None, narrower, cp.parts.manager.store)).warnings
            assert lost.startswith('service "web": this permission decides in place of "allow-all" now')
            told = f"what callers lose was looked at for {most} inbounds only, not for all"
            assert more == ([told] if is_told else [])
