"""What permissions say about some callers stays the same as long as it means the same for them."""

from kuma.policy.authorization import NOBODY, Admission, Principal
from kuma.policy.caller_groups import Companions, companions, group, part_for
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
