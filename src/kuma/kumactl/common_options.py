"""Options that all commands of kumactl have in common are taken wherever they stand, as the original takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperGroup


class CommonOptions(TyperGroup):
    """A program whose own options may also follow the command: `kumactl get meshes --no-config`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, these options first."""
        valued = [(option, not getattr(option, "is_flag", False)) for option in self.params if not option.is_eager]
        own = {name: takes_value for option, takes_value in valued for name in option.opts}
        return super().parse_args(ctx, first(own, args))


def first(options: Mapping[str, bool], arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, with these options before all others; the mapping says of each whether it takes a value.

    What follows `--` is no option. One whose value is missing ends the arguments, so that it is complained of.
    """
    found: list[str] = []
    others: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if argument == "--":
            return [*found, *others, argument, *rest]
        if name not in options:
            others.append(argument)
            continue
        found.append(argument)
        if options[name] and not equals:
            value = next(rest, None)
            if value is None:
                return found
            found.append(value)
    return [*found, *others]
