"""By what the soak judges when connections end."""

from soak.bounds import Bound, Span, cut


def test_what_was_opened_in_time_may_not_outlive_the_end_of_a_bound() -> None:
    bound = Bound("retired", 10, 20, end=30)
    assert bound.overstays(Span(15), now=31)
    assert bound.overstays(Span(15, 40), now=50)
    assert not bound.overstays(Span(15, 29), now=50)
    assert not bound.overstays(Span(15), now=29), "there is time left"
    assert not bound.overstays(Span(9), now=50), "opened before"
    assert not bound.overstays(Span(20), now=50), "opened afterwards"


def test_or_an_age() -> None:
    bound = Bound("leaf", 10, 20, age=5)
    assert bound.overstays(Span(15, 21), now=50)
    assert not bound.overstays(Span(15, 20), now=50)
    assert not bound.is_over(25)
    assert bound.is_over(26)


def test_only_what_was_open_already_can_be_cut() -> None:
    assert cut([Span(1, 5), Span(6, 9), Span(7, 20), Span(2)], 4, 10) == 1
