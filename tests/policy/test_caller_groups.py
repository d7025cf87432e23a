"""What permissions say about some callers stays the same as long as it means the same for them."""

from kuma.policy.authorization import NOBODY, Admission, Principal
from kuma.policy.caller_groups import CHAINS, GROUPS, Companions, companions, group, groups, part_for
from kuma.resources.tags import SERVICE

WEB, SHOP, ANYBODY = Principal(((SERVICE, "web"),)), Principal(((SERVICE, "shop"),)), Principal()
DEV = Principal((("env", "dev"),))


def part(
    *principals: Principal,
    deny: tuple[Principal, ...] = (),
    of: tuple[str, ...] = ("web",),
    beside: Companions = {},  # noqa: B006 - read only
) -> Admission:
    return part_for(Admission("any name", principals, deny), of, beside)


def test_who_is_admitted_by_another_permission_sees_no_change() -> None:
    assert part(ANYBODY) == part(WEB) == part(WEB, SHOP) == part(ANYBODY, deny=(SHOP,)) == part(WEB, ANYBODY)


def test_who_is_admitted_no_more_sees_one() -> None:
    assert part(SHOP) == part(ANYBODY, deny=(WEB,)) == part() == NOBODY != part(WEB)


def test_what_looks_at_tags_is_about_each_caller() -> None:
    found = part(ANYBODY, deny=(DEV,))
    assert found.principals == (WEB,)
    assert found.denied == (Principal((("env", "dev"), (SERVICE, "web"))),)


def test_callers_of_one_group_are_told_apart_within_it() -> None:
    assert part(ANYBODY, deny=(SHOP,), of=("web", "shop")).principals == (WEB,)
    assert group(("web",)) != group(("shop",))
    assert len(group(("web",))) == 2


def test_who_shows_a_denied_service_beside_an_admitted_one_is_refused_in_every_group() -> None:
    beside = companions([("shop", "web")])
    for of in (("web",), ("shop", "web")):
        found = part(ANYBODY, deny=(SHOP,), of=of, beside=beside)
        assert (found.principals, found.denied) == ((WEB,), (SHOP,))
    assert part(ANYBODY, deny=(SHOP,), of=("bank",), beside=beside).denied == ()


def test_an_inbound_has_no_more_chains_than_it_can_bear_and_each_group_has_one_of_them() -> None:
    services = [f"service-{number}" for number in range(2000)]
    few = groups((service,) for service in services[:50])
    assert all(len(sharing) == 1 for sharing in few), "as long as there are few, each group has its own"
    many = groups((service,) for service in services)
    assert len(many) == CHAINS
    assert sorted(name for sharing in many for name in sharing) == [f"{number:02x}" for number in range(GROUPS)]
    assert sorted(service for those in many.values() for service in those) == sorted(services)
    for sharing, those in many.items():
        assert {group((service,)) for service in those} <= set(sharing)
    fewer = groups((service,) for service in services[:300])
    shared = {name: sharing for sharing in many for name in sharing}
    assert all(set(sharing) <= set(shared[sharing[0]]) for sharing in fewer), "who shares one does not depend on others"
