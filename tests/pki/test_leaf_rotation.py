"""When certificates are replaced, and what becomes of an authority that fails."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kuma.pki.issuance_failures import OPENS_AT, PAUSE, Breaker
from kuma.pki.leaf_rotation import has_been_set_back, is_overdue, rotation_time
from kuma.pki.x509 import BACKDATED

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.timedeltas(timedelta(seconds=1), timedelta(days=3650)), st.floats(0, 1))
def test_a_certificate_is_replaced_at_four_fifths_of_its_life_or_a_little_earlier(life: timedelta, luck: float) -> None:
    part = (rotation_time(NOW, NOW + life, luck) - NOW) / life
    assert 0.75 - 1e-3 <= part <= 0.8 + 1e-3


def test_a_clock_is_set_back_when_it_stands_before_the_begin_of_the_certificate() -> None:
    begin = NOW - BACKDATED
    assert not has_been_set_back(NOW, begin), "it holds from that instant on"
    assert has_been_set_back(NOW, begin - timedelta(microseconds=1))


def test_a_certificate_is_overdue_once_it_could_have_been_replaced_more_than_once() -> None:
    end = NOW + timedelta(hours=100)
    assert not is_overdue(NOW, end, rotation_time(NOW, end, luck=0))
    assert is_overdue(NOW, end, NOW + timedelta(hours=85))


def test_an_authority_that_keeps_failing_is_spared() -> None:
    breaker = Breaker()
    for _ in range(OPENS_AT):
        assert breaker.allows(NOW)
        breaker.failed(NOW)
    assert not breaker.allows(NOW + PAUSE / 2)
    assert breaker.allows(NOW + PAUSE)
    assert not breaker.allows(NOW + PAUSE), "one attempt per pause"
    breaker.succeeded()
    assert breaker.allows(NOW + PAUSE)


def test_failures_that_are_not_in_a_row_do_not_count() -> None:
    breaker = Breaker()
    for _ in range(3 * OPENS_AT):
        breaker.failed(NOW)
        breaker.succeeded()
    assert breaker.allows(NOW)
