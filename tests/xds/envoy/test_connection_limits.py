"""How long connections may go on, by how long leaves live."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuma.foresight import traffic
from kuma.pki.leaf_rotation import REPLACED_AT
from kuma.xds.envoy.listeners import connection_limits

SECOND = timedelta(seconds=1)


@given(st.timedeltas(min_value=SECOND, max_value=timedelta(days=3650)))
def test_what_a_leaf_has_opened_when_it_was_about_to_be_replaced_ends_in_time(lifetime: timedelta) -> None:
    limits = connection_limits.of(lifetime)
    assert limits.tcp and limits.http_connection and limits.http_stream
    left = lifetime - lifetime * REPLACED_AT
    assert limits.tcp <= left + connection_limits.STANDARD_LINGER + SECOND
    assert limits.http_connection + limits.http_stream <= limits.tcp


@pytest.mark.parametrize("linger", [0, 1, 30])
def test_the_limits_are_never_nothing(linger: int) -> None:
    limits = connection_limits.of(timedelta(seconds=3), linger * SECOND)
    assert min(limit for limit in limits if limit is not None) > timedelta(milliseconds=50)


def test_no_connection_over_http_is_open_for_much_longer_than_an_hour_before_it_is_reported() -> None:
    """Of those with mesh TLS the end is reported; leaves of a day are those of a mesh that says nothing of it."""
    longest = connection_limits.of(timedelta(days=1)).http_connection
    assert longest is not None and longest // timedelta(minutes=1) == 72


def test_a_caller_without_a_certificate_is_heard_of_in_the_time_that_people_are_told() -> None:
    """A connection over HTTP ends with what is asked after the limit, or when nothing was asked for an hour."""
    idle = timedelta(hours=1)
    longest = connection_limits.NONE.unidentified.http_connection
    assert longest is not None and max(longest + idle, 2 * idle) <= traffic.UNSEEN


@pytest.mark.parametrize(("leaves", "minutes"), [(timedelta(days=1), 10), (timedelta(hours=1), 3)])
def test_what_is_open_without_a_certificate_goes_on_no_longer_than_what_is_with_one(
    leaves: timedelta, minutes: int
) -> None:
    limits = connection_limits.of(leaves).unidentified
    assert limits.http_connection is not None and limits.http_connection // timedelta(minutes=1) == minutes
    assert (limits.tcp, limits.http_stream) == (None, None), "a stream is reported while it goes on"
