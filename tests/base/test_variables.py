"""`{{ name }}` in texts, and the arguments that say what stands there."""

import pytest

from kuma.base.errors import Misconfigured
from kuma.base.values.variables import filled, pairs


def test_texts_are_filled_with_what_the_arguments_say() -> None:
    values = pairs("--var", ["mesh.name=default", "expression=a=b", "empty=", "mesh.name=other"])
    text = "{{mesh.name}} {{ expression }}{{ empty }}; {{ }} {single}"
    assert filled(text, values, what="it", option="--var") == "other a=b; {{ }} {single}"


def test_what_is_missing_is_named_at_once() -> None:
    with pytest.raises(Misconfigured, match=r"^a\.yaml has no value for a, c; give --var name=value"):
        filled("{{c}} {{b}} {{ a }} {{c}}", {"b": ""}, what="a.yaml", option="--var")


def test_an_argument_without_a_value_is_named() -> None:
    with pytest.raises(Misconfigured, match=r"^--var x: has to be name=value"):
        pairs("--var", ["a=b", "x"])
