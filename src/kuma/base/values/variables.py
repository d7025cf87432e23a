"""`{{ name }}` in texts, and the `name=value` arguments that say what stands there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from kuma.base.errors import Misconfigured

_VARIABLE = re.compile(r"\{\{\s*([\w.]+)\s*}}")


def pair(option: str, text: str) -> tuple[str, str]:
    """Returns name and value of one argument.

    Raises:
        Misconfigured: it has another form; names the option.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise Misconfigured(f"{option} {text}: has to be name=value")
    return name, value


def pairs(option: str, texts: Sequence[str]) -> Mapping[str, str]:
    """Parses all arguments of an option; see `pair`."""
    return dict(pair(option, text) for text in texts)


def names_in(text: str) -> Sequence[str]:
    """Returns the names that a text has, sorted."""
    return sorted(set(_VARIABLE.findall(text)))


def filled(text: str, variables: Mapping[str, str], *, what: str, option: str) -> str:
    """Fills in the value of each `{{ name }}`; `what` the text is and the `option` that gives values are for errors.

    Raises:
        Misconfigured: some have no value; names them all.
    """
    missing = [name for name in names_in(text) if name not in variables]
    if missing:
        raise Misconfigured(f"{what} has no value for {', '.join(missing)}; give {option} name=value")
    return _VARIABLE.sub(lambda match: variables[match[1]], text)
