"""For how long an Envoy keeps what it listens by."""

from __future__ import annotations

import math

import pytest

from kuma.base.values import contact_limit


@pytest.mark.parametrize("limit", [1.0, 20, 600.0, 86400.0])
def test_it_is_never_less_than_a_proxy_may_serve(limit: float) -> None:
    """Also if the control plane is lost just before it would have sent it again, or is found just in time."""
    holds = contact_limit.holds_for(limit)
    assert limit + 15 <= holds - contact_limit.renewal(holds) <= limit + 15.001
    assert contact_limit.first_renewal(holds) < 15


@pytest.mark.parametrize("said", [None, "10", True, 0.0, -1.0, math.nan, math.inf, {}, []])
def test_what_is_no_limit_is_none(said: object) -> None:
    assert contact_limit.holds_for(said) == 0.0


def test_no_limit_is_longer_than_envoy_can_count() -> None:
    assert contact_limit.holds_for(1e300) < 2**31
