"""What comes from outside as JSON goes out again as JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuma.base.values import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("NaN", "NaN is no number"),
        ('{"x": [-Infinity]}', "-Infinity is no number"),
        ("1e999", "too large a number"),
        (r'"\ud800"', r"\\ud800 is half of a surrogate pair"),
        (r'{"\udfff": 1}', r"\\udfff is half"),
        (b'"\xed\xa0\x80"', r"\\ud800 is half"),
        ("[" * 100_000, "nested deeper than 64"),
        ("[" * 65 + "]" * 65, "nested deeper than 64"),
        ('{"a": ' * 70 + "1" + "}" * 70, "nested deeper than 64"),
        ('{"a": 1, "a": 2}', '"a" is given twice'),
        ("{", "Expecting"),
        (b"\xff", "decode"),
        ("1" * 5000, "limit"),
        ("[" + "[]," * 60_000 + "0]", "more than 100000 values"),
        (b"[" + b"0," * 110_000 + b"0]", "more than 100000 values"),
    ],
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        strict_json.loads(text)


def test_what_is_not() -> None:
    assert strict_json.loads("[" * 64 + "]" * 64)
    assert strict_json.loads(r'["\ud83d\ude00", 1.5, null, true]') == ["\U0001f600", 1.5, None, True]


@given(VALUES)
def test_what_is_let_through_can_be_answered(value: Any) -> None:
    try:
        found = strict_json.loads(json.dumps(value))
    except ValueError:
        return
    assert strict_json.loads(json.dumps(found, ensure_ascii=False, allow_nan=False).encode()) == value


class Name(str):
    """A name that counts the comparisons of all of them."""

    __slots__ = ()
    __hash__ = str.__hash__
    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


def test_a_long_text_that_is_refused_takes_no_longer_than_one_that_is_not() -> None:
    """Anybody may send one to `/bootstrap`, and everything else waits meanwhile."""
    names = [Name(f"{number:x}") for number in range(2000)]
    with pytest.raises(ValueError, match='"7cf" is given twice'):
        strict_json.named_once([*((name, 0) for name in names), (Name("7cf"), 0)])
    assert Name.compared < 10  # and not each of them with every other one
