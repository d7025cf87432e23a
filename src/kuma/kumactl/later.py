"""Commands whose code is loaded when they are called: nobody waits for what they have not asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup


class Later(TyperGroup):
    """A group of commands, some of which are known by name only, and where to find them."""

    later: ClassVar[Mapping[str, str]] = {}
    """`module:attribute` of each; a function, or a group of its own."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.later, *(name for name in super().list_commands(ctx) if name not in self.later)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in self.later:
            found = _loaded(self.later[cmd_name])
            self.add_command(found, cmd_name)
        return found

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument calls; a slip is answered with the nearest one, loaded or not."""
        known = self.list_commands(ctx)
        if args and args[0] not in known:
            for near in difflib.get_close_matches(args[0], known, n=1):
                self.get_command(ctx, near)  # what is loaded is what is suggested
        return super().resolve_command(ctx, args)


class Aliased(Later):
    """A group whose commands have other names, too, that people expect from other commands."""

    aliases: ClassVar[Mapping[str, str]] = {}
    of_one: ClassVar[Mapping[str, str]] = {}
    """What an alias stands for if a name follows it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument calls."""
        first, *rest = args
        meant = self.aliases.get(first, first)
        if first in self.of_one and rest and not rest[0].startswith("-"):
            meant = self.of_one[first]
        return super().resolve_command(ctx, [meant, *rest])


def _loaded(where: str) -> Any:
    module, _, attribute = where.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False)
        found.command()(function)
    return typer.main.get_command(found)
