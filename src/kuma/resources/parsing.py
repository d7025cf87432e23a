"""Parses plain data into a checked spec, with every violation at the path where the user wrote it."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kuma.base.errors import InvalidResource, Violation
from kuma.resources import former_fields, limits
from kuma.resources.kinds import Kind
from kuma.resources.resource import DISCRIMINATOR, Model, plain

_PLAIN_WORDS = {
    "string_type": "has to be a string; put it in quotes",
    "int_type": "has to be a whole number",
    "bool_type": "has to be true or false",
    "missing": "is required",
    "dict_type": "has to be a map of names to values",
    "model_type": "has to be a map of names to values",
    "tuple_type": "has to be a list",
}


def parse_spec(kind: Kind, data: Mapping[str, Any], mesh: str = "") -> Model:
    """A validated spec of `kind`, of a resource in `mesh`.

    Raises:
        InvalidResource: with every violation found, structure first; with one if it is too large to be looked at.
    """
    limits.check(kind.name, data)
    try:
        spec = kind.spec.model_validate(data)
    except ValidationError as error:
        raise InvalidResource(_violation(kind, details) for details in _telling(error)) from None
    violations = (*kind.validate(spec), *kind.validate_in_mesh(spec, mesh))
    if violations:
        raise InvalidResource(violations)
    return spec


def path_of(location: Sequence[str | int]) -> str:
    """A JSON path as people write it: `mtls.backends[0].conf`, `tags["kuma.io/service"]`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"\w+", part):
            path += f".{part}" if path else part
        else:
            path += f'["{part}"]'
    return path


def _telling(error: ValidationError) -> Iterator[ErrorDetails]:
    """The complaints without those that depend on another one."""
    found = error.errors(include_url=False)
    undecided = {details["loc"][:-1]: details["loc"] for details in found if details["type"] == DISCRIMINATOR}
    for details in found:
        loc = details["loc"]
        if all(loc[: len(parent)] != parent or loc == own for parent, own in undecided.items()):
            yield details


def _violation(kind: Kind, details: ErrorDetails) -> Violation:
    location = details["loc"]
    path = path_of(location)
    if details["type"] == "extra_forbidden":
        known = former_fields.hint(kind.name, path)
        return Violation(
            path, f"unknown field: {known}" if known else f"unknown field{_suggestion(kind.spec, location)}"
        )
    return Violation(path, reason(details))


def reason(details: ErrorDetails) -> str:
    """Describes what is wrong with a value, in words that need no knowledge of the validation library."""
    if details["type"] == "literal_error":
        return f"has to be {details['ctx']['expected'].replace(chr(39), '')}; got {plain(details['input'])}"
    return _PLAIN_WORDS.get(details["type"], details["msg"])


def _suggestion(model: type[Model], location: Sequence[str | int]) -> str:
    *parents, last = location
    names = [info.alias or name for name, info in _model_at(model, parents).model_fields.items()]
    close = difflib.get_close_matches(str(last), names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known fields: {', '.join(names)}"


def _model_at(model: type[Model], parents: Sequence[str | int]) -> type[Model]:
    for part in parents:
        for name, info in model.model_fields.items():
            if part in (info.alias, name):
                model = _model_within(info.annotation) or model
    return model


def _model_within(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for arg in typing.get_args(annotation) if (found := _model_within(arg))), None)
