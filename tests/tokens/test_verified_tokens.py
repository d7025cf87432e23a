"""A token is verified once, and again whenever it may hold no longer."""

import asyncio
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuma.base.errors import Unauthenticated
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.resources.view import Named
from kuma.tokens import dataplane_tokens, signing_keys
from kuma.tokens.validation import STANDARD
from kuma.tokens.verified_tokens import VerifiedTokens

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
REVOCATIONS = "dataplane-token-revocations-default"


@pytest.fixture(scope="module")
def secrets() -> Any:
    found = asyncio.run(dataplane_tokens.new_signing_key("default"))
    return Named(edited={found.name: found})


@pytest.fixture(scope="module")
def token(secrets: Any) -> str:
    return dataplane_tokens.issue_token("default", secrets, name="web-01", valid_for=HOUR, now=NOW)


def test_a_token_that_is_shown_again_is_not_verified_again(secrets: Any, token: str) -> None:
    known = VerifiedTokens(STANDARD)
    first = known.claims(token, "default", secrets, NOW)
    assert known.claims(token, "default", secrets, NOW + HOUR / 2) is first


def test_a_token_is_verified_again_when_secrets_are_others(secrets: Any, token: str) -> None:
    known = VerifiedTokens(STANDARD)
    first = known.claims(token, "default", secrets, NOW)
    others = Named(secrets)
    again = known.claims(token, "default", others, NOW)
    assert again == first
    assert again is not first


def test_keys_that_are_gone_are_not_kept_by_tokens_that_they_have_signed(secrets: Any, token: str) -> None:
    known, gone = VerifiedTokens(STANDARD), Named(secrets)
    known.claims(token, "default", gone, NOW)
    left = weakref.ref(gone)
    del gone
    assert left() is None


def test_a_token_that_is_revoked_holds_no_longer(secrets: Any, token: str) -> None:
    known = VerifiedTokens(STANDARD)
    known.claims(token, "default", secrets, NOW)
    jti = str(signing_keys.described(token)["jti"]).encode()
    revoked = Resource(kinds.SECRET.key(REVOCATIONS, "default"), SecretSpec(data=jti))
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="revoked"):
            known.claims(token, "default", Named(secrets, {REVOCATIONS: revoked}), NOW)


def test_a_token_that_has_expired_holds_no_longer(secrets: Any, token: str) -> None:
    known = VerifiedTokens(STANDARD)
    known.claims(token, "default", secrets, NOW)
    with pytest.raises(signing_keys.Expired):
        known.claims(token, "default", secrets, NOW + HOUR)


def test_a_token_does_not_hold_in_another_mesh(secrets: Any, token: str) -> None:
    known = VerifiedTokens(STANDARD)
    known.claims(token, "default", secrets, NOW)
    with pytest.raises(Unauthenticated):
        known.claims(token, "other", secrets, NOW)


def test_a_token_is_of_later_once_the_clock_was_set_back(secrets: Any, token: str) -> None:
    known = VerifiedTokens(STANDARD)
    known.claims(token, "default", secrets, NOW)
    with pytest.raises(signing_keys.NotValidYet):
        known.claims(token, "default", secrets, NOW - HOUR)


def test_a_damaged_token_is_refused_beside_one_that_holds(secrets: Any, token: str) -> None:
    known = VerifiedTokens(STANDARD)
    known.claims(token, "default", secrets, NOW)
    with pytest.raises(Unauthenticated):
        known.claims(f"{token[:-8]}AAAAAAAA", "default", secrets, NOW)
