"""New permissions take over from the ones before only where a caller's leaf can show what they look at."""

from collections.abc import Iterable

import pytest

from kuma.policy.authorization import NOBODY, Admission, MeshPermission, Permission, Principal
from kuma.policy.caller_groups import group
from kuma.policy.permissions import Permissions
from kuma.policy.succession import Renamed, Stage, for_connections, for_requests
from kuma.resources.tags import SERVICE
from tests.policy.test_authorization import MESH, mesh_permission, permission, subset

WEB, ANYBODY = Principal(((SERVICE, "web"),)), Principal()
PROD, DEV, TEAM_A = Principal((("env", "prod"),)), Principal((("env", "dev"),)), Principal((("team", "a"),))
DATAPLANES = ({SERVICE: "web", "env": "prod"}, {SERVICE: "shop", "env": "dev", "team": "a"}, {SERVICE: "shop"})
ENV = frozenset({"env"})

WEB_OLD, WEB_NEW = {SERVICE: "web"}, {SERVICE: "web", "env": "prod"}
SHOP_OLD, SHOP_DEV, SHOP_PROD = {SERVICE: "shop"}, {SERVICE: "shop", "env": "dev"}, {SERVICE: "shop", "env": "prod"}


def legacy(found: Permission) -> Permissions:
    return Permissions().following({found.name: found}, {})


def mesh(found: MeshPermission) -> Permissions:
    return Permissions().following({}, {found.name: found})


def named(principal: Principal) -> Iterable[str]:
    return {tags[SERVICE] for tags in DATAPLANES if principal.tags and set(principal.tags) <= set(tags.items())}


def admits(admission: Admission, leaf: dict[str, str]) -> bool:
    """What Envoy makes of it: the leaf is all that it sees of a caller."""

    def meant(principals: Iterable[Principal]) -> bool:
        return any(
            set(principal.tags) <= set(leaf.items()) and not (principal.lacks and set(principal.lacks) <= leaf.keys())
            for principal in principals
        )

    return meant(admission.principals) and not meant(admission.denied)


def allow(*principals: Principal, deny: tuple[Principal, ...] = ()) -> Admission:
    return Admission("permission", tuple(sorted(principals)), tuple(sorted(deny)))


@pytest.mark.parametrize(
    ("leaf", "admitted"),
    [(WEB_OLD, True), (WEB_NEW, True), (SHOP_OLD, False), (SHOP_DEV, False), (SHOP_PROD, True)],
    ids=str,
)
def test_an_allowance_by_tag_refuses_nobody_who_was_admitted_and_cannot_show_it(
    leaf: dict[str, str], admitted: bool
) -> None:
    assert admits(for_requests(allow(WEB), allow(PROD), named), leaf) is admitted


@pytest.mark.parametrize(
    ("leaf", "admitted"),
    [(WEB_OLD, True), (WEB_NEW, True), (SHOP_OLD, False), (SHOP_DEV, False), (SHOP_PROD, True)],
    ids=str,
)
def test_a_denial_by_tag_denies_by_name_whoever_cannot_show_it(leaf: dict[str, str], admitted: bool) -> None:
    assert admits(for_requests(allow(ANYBODY), allow(ANYBODY, deny=(DEV,)), named), leaf) is admitted
    assert admits(for_requests(NOBODY, allow(ANYBODY, deny=(DEV,)), named), leaf) is admitted, "the first permission"


@pytest.mark.parametrize("leaf", [WEB_OLD, WEB_NEW, SHOP_OLD, SHOP_DEV])
def test_a_new_connection_is_judged_by_the_new_rule_only_when_all_leaves_can_show_what_it_looks_at(
    leaf: dict[str, str],
) -> None:
    old, new = allow(WEB), allow(PROD)
    assert for_connections(old, new, frozenset(), named) == old, "nothing changes, so that nothing is drained"
    assert for_connections(old, new, ENV, named) == new
    denying = allow(ANYBODY, deny=(DEV,))
    assert admits(for_connections(allow(ANYBODY), denying, frozenset(), named), leaf) is (leaf[SERVICE] == "web")
    assert admits(for_connections(NOBODY, denying, frozenset(), named), leaf) is (leaf[SERVICE] == "web")


def test_rules_that_look_at_nothing_new_act_at_once() -> None:
    for old, new in ((allow(PROD), allow(PROD, deny=(DEV,))), (allow(PROD), allow(WEB)), (allow(WEB), NOBODY)):
        assert for_requests(old, new, named) == new
        assert for_connections(old, new, ENV, named) == new


def test_of_two_tags_a_leaf_has_to_show_both_to_be_judged_by_the_new_rule() -> None:
    found = for_requests(allow(WEB), allow(PROD, deny=(TEAM_A,)), named)
    assert admits(found, WEB_NEW)
    assert not admits(found, {SERVICE: "shop", "env": "prod"}), "of team a, as far as one can know"
    assert admits(found, {SERVICE: "shop", "env": "prod", "team": "b"})


def test_where_too_many_would_have_to_be_named_nobody_passes_who_cannot_show() -> None:
    many = for_requests(allow(ANYBODY), allow(ANYBODY, deny=(DEV,)), lambda _: map(str, range(1000)))
    assert not admits(many, WEB_OLD)
    assert admits(many, WEB_NEW)


def test_the_stages_of_a_mesh_that_comes_to_look_at_tags_and_goes_back() -> None:
    by_service = legacy(permission("p", {SERVICE: "*"}, {SERVICE: "web"}))
    by_env = mesh(mesh_permission("env", MESH, ("Allow", subset(env="prod"))))
    stage = Stage().begin(by_service, by_env)
    assert (stage.before, stage.shown, stage.carried) == (by_service, frozenset(), frozenset())
    rule = by_env.admission({SERVICE: "backend"})
    assert stage.label(rule) == ""
    stage = stage.learned(by_env, 0)
    assert stage.before is by_service, "connections from before are still open"
    assert stage.label(rule) == "env/0", "and are to end"
    stage = stage.settled(by_env)
    assert stage == Stage(ENV)
    assert stage.label(rule) == "env/0"
    stage = stage.begin(by_env, by_service)
    assert stage.before is None, "what can be seen of everybody decides at once"
    assert stage.carried == ENV, "proxies may still run the rule that looks at it"
    assert stage.learned(by_service, 0).settled(by_service) == Stage()


def test_a_second_change_before_the_first_has_been_followed_goes_back_to_what_decided_before_both() -> None:
    by_service = legacy(permission("p", {SERVICE: "*"}, {SERVICE: "web"}))
    by_env = mesh(mesh_permission("env", MESH, ("Allow", subset(env="prod"))))
    by_team = mesh(mesh_permission("team", MESH, ("Allow", subset(team="a"))))
    stage = Stage().begin(by_service, by_env).begin(by_env, by_team)
    assert stage.before is by_service
    assert stage.carried == ENV


def test_filter_chains_are_labelled_alike_by_all_control_planes() -> None:
    """Whatever the order in which one holds its sets: another label would drain what is open."""
    tags = tuple((name, "x") for name in "fbdace")
    admission = allow(Principal(tags))
    assert Stage(shown=frozenset("fedcba")).label(admission) == "a,b,c,d,e,f/0"
    assert Stage(shown=frozenset("bz"), renamed=1).label(admission) == "b/1"
    assert Stage(renamed=2).label(admission) == "/2", "who got other names has to connect anew, whatever is looked at"
    assert Stage(shown=ENV).label(allow(WEB)) == ""
    (judged_by_old,) = set(for_requests(allow(WEB), admission, named).principals) - set(admission.principals)
    assert judged_by_old.lacks == tuple("abcdef")


def test_chains_of_others_have_the_label_that_they_had() -> None:
    """Where it is known who got another name. What an older version has counted is of everybody."""
    of_web = Renamed(2, ((group(("web",)), 2),))
    before, after = Stage(renamed=1), Stage(renamed=3, renamed_apart=of_web)
    admission = allow(WEB)
    assert before.label_for(admission, ["shop"]) == after.label_for(admission, ["shop"]) == "/1"
    assert before.label_for(admission, ["web", "shop"]) == "/1"
    assert after.label_for(admission, ["web", "shop"]).startswith("/1.")
    assert Stage(renamed=2, renamed_apart=of_web).label_for(admission, ["shop"]) == ""
    once_more = Stage(renamed=4, renamed_apart=Renamed(3, ((group(("web",)), 3),)))
    assert once_more.label_for(admission, ["web"]) != after.label_for(admission, ["web"])
