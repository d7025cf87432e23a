"""What a mesh trusts and who issues, decided from a view alone: what is kept, what is let go, and what is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from structlog.testing import capture_logs

from kuma.authorities import builtin, retained
from kuma.authorities.trust import NONE, Trust, trust
from kuma.base.clock import SystemClock
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.x509 import CaPair
from kuma.resources import kinds
from kuma.resources.models.mesh import Conf
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec, Position
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from tests.fakes.control_plane import resource

Root = tuple[Resource[Any], Resource[Any]]


async def made(name: str) -> Root:
    """The Secrets of a new root."""
    pair: CaPair = await builtin.create_root("default", Conf(), SystemClock())
    return builtin.to_secrets("default", name, pair)


@pytest.fixture
async def one() -> Root:
    return await made("ca-1")


@pytest.fixture
async def two() -> Root:
    return await made("ca-2")


def view(listed: Iterable[str], *roots: Root, position: Position | None = None) -> MeshView:
    """A mesh that lists backends, with the Secrets of some roots."""
    backends = ", ".join(f"{{name: {name}, type: builtin}}" for name in listed)
    mesh = resource(f"{{type: Mesh, name: default, mtls: {{backends: [{backends}]}}}}")
    found = MeshView("default", mesh=mesh, secrets={secret.key.name: secret for root in roots for secret in root})
    spec = MeshTransitionSpec(position=position or Position())
    return found.having(Resource(kinds.MESH_TRANSITION.key("default", "default"), spec))


def of(root: Root, name: str) -> tuple[str, str]:
    """The fingerprint of a root, and its certificate."""
    found = trust(view([name], root))
    return found.fingerprint(name), found.roots[0]


def issued_by(root: Root, name: str, level: Level = Level.STRICT) -> Position:
    fingerprint, certificate = of(root, name)
    return Position(level=level, authority=fingerprint, roots=(certificate,))


def broken(root: Root) -> Root:
    certificate, key = root
    return certificate.with_spec(SecretSpec(data=b"nothing")), key


def nobody_issues(found: Trust) -> str:
    with pytest.raises(AuthorityUnusable) as raised:
        _ = found.issuing
    return str(raised.value)


def test_what_has_not_changed_stays_the_very_same_object(one: Root, two: Root) -> None:
    before = trust(view(["ca-1", "ca-2"], one, two))
    assert trust(view(["ca-1", "ca-2"], one, two), before) is before


async def test_only_the_authority_whose_content_is_another_is_opened_anew(one: Root, two: Root) -> None:
    before = trust(view(["ca-1", "ca-2"], one, two))
    after = trust(view(["ca-1", "ca-2"], one, await made("ca-2")), before)
    assert after.opened["ca-1"] is before.opened["ca-1"]
    assert after.fingerprint("ca-2") not in ("", before.fingerprint("ca-2"))
    assert not after.problems


def test_the_one_that_issues_is_the_one_of_the_position_whichever_stands_first(one: Root, two: Root) -> None:
    for root, name in ((one, "ca-1"), (two, "ca-2")):
        found = trust(view(["ca-1", "ca-2"], one, two, position=issued_by(root, name)))
        assert (found.issuing.name, found.supported) == (name, (name,))
        assert len(found.roots) == 2


def test_no_other_authority_issues_instead(one: Root) -> None:
    unknown = Position(level=Level.STRICT, authority="of nobody")
    assert nobody_issues(trust(view(["ca-1"], one, position=unknown))) == "the authority that issues is not known"
    told = nobody_issues(trust(view(["ca-1", "ca-2"], one, position=unknown)))
    assert told == trust(view(["ca-1", "ca-2"], one)).problems["ca-2"] != ""
    assert nobody_issues(NONE) == "the authority that issues is not known"


def test_a_backend_that_cannot_be_opened_has_no_fingerprint(one: Root) -> None:
    found = trust(view(["ca-1", "ca-2"], one))
    assert (found.fingerprint("ca-2"), set(found.opened), set(found.problems)) == ("", {"ca-1"}, {"ca-2"})


def test_the_last_good_one_goes_on_and_its_problem_is_told_once(one: Root) -> None:
    position = issued_by(one, "ca-1")
    before = trust(view(["ca-1"], one, position=position))
    with capture_logs() as logs:
        after = trust(view(["ca-1"], broken(one), position=position), before)
        assert len(logs) == 1
        assert trust(view(["ca-1"], broken(one), position=position), after) is after
    assert after.opened["ca-1"] is before.opened["ca-1"]
    assert "AuthorityUnusable" not in after.problems["ca-1"]
    assert [(line["log_level"], line["backend"], line["reason"]) for line in logs] == [
        ("error", "ca-1", after.problems["ca-1"])
    ]


def test_one_that_is_listed_no_more_issues_until_the_mesh_has_left_it(one: Root, two: Root) -> None:
    position = issued_by(one, "ca-1")
    before = trust(view(["ca-1", "ca-2"], one, two, position=position))
    removed = trust(view(["ca-2"], one, two, position=position), before)
    assert removed.issuing is before.issuing
    without_secrets = trust(view(["ca-2"], two, position=position), removed)
    assert without_secrets.issuing is before.issuing
    left = trust(view(["ca-2"], two, position=issued_by(two, "ca-2")), without_secrets)
    assert (left.issuing.name, left.retiring) == ("ca-2", left.opened["ca-2"][1])


def test_one_that_is_listed_as_another_type_issues_from_the_root_that_was_made_for_its_name(one: Root) -> None:
    provided = "{name: ca-1, type: provided, conf: {cert: {secret: s}, key: {secret: s}}}"
    declared = resource(f"{{type: Mesh, name: default, mtls: {{backends: [{provided}]}}}}")
    before = view([], one, position=issued_by(one, "ca-1"))
    found = trust(before.having(declared))
    assert found.issuing.fingerprint == before.position.authority


def test_one_that_is_kept_for_the_change_issues_after_a_restart(one: Root) -> None:
    certificate, key = one
    kept = Resource(
        kinds.SECRET.key("default.ca-kept", "default"),
        SecretSpec(data=certificate.spec.data + b"\n" + key.spec.data),
        labels={"kuma.io/backend": "own"},
    )
    authority = retained.open_retained(view([], (kept, kept)))
    assert authority is not None
    position = Position(level=Level.STRICT, authority=authority.fingerprint, roots=(authority.roots_pem.decode(),))
    found = trust(view([], (kept, kept), position=position))
    assert (found.issuing.name, found.issuing.fingerprint) == ("own", authority.fingerprint)


@pytest.mark.parametrize("level", [Level.STRICT, Level.ENCRYPTING])
def test_after_a_restart_one_that_is_listed_no_more_issues_from_its_secrets(level: Level, one: Root, two: Root) -> None:
    torn = broken(one)
    position = issued_by(two, "ca-2", level)
    found = trust(view([], torn, two, position=position))
    assert (found.issuing.name, found.issuing.fingerprint) == ("ca-2", position.authority)
    assert (found.roots, dict(found.problems)) == ((), {})  # what nobody lists is no problem of the mesh


def test_in_a_mesh_without_mutual_tls_nothing_that_is_not_listed_is_opened(one: Root) -> None:
    found = trust(view([], one, position=issued_by(one, "ca-1", Level.PLAIN)))
    assert found.retiring is None


def test_roots_that_two_backends_share_are_trusted_once(one: Root) -> None:
    certificate, key = (secret.spec for secret in one)
    names = builtin.secret_names("default", "ca-2")
    same = tuple(
        Resource(kinds.SECRET.key(name, "default"), spec) for name, spec in zip(names, (certificate, key), strict=True)
    )
    found = trust(view(["ca-1", "ca-2"], one, (same[0], same[1]), position=issued_by(one, "ca-1")))
    assert (len(found.roots), found.supported) == (1, ("ca-1", "ca-2"))
