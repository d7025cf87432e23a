"""All commands of all programs, as the tree of commands has them: each teaches by an example that names it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kuma.agent import kuma_dp
from kuma.app import kuma_cp
from kuma.kumactl import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kumactl.md"


def commands(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    if not hasattr(tree, "list_commands"):
        yield path, tree
        return
    for name in tree.list_commands(None):
        yield from commands(tree.get_command(None, name), (*path, name))


ALL = [
    pytest.param(path, command, id=" ".join(path))
    for program in (main, kuma_dp, kuma_cp)
    for path, command in commands(typer.main.get_command(program.app), (str(program.app.info.name),))
]


def test_there_are_commands() -> None:
    assert len(ALL) >= 30


@pytest.mark.parametrize(("path", "command"), ALL)
def test_every_command_has_an_example_of_itself(path: tuple[str, ...], command: Any) -> None:
    example = re.search(r"Example: (.*)", command.help, re.DOTALL)
    assert example is not None
    assert example[1].startswith(" ".join(path))


@pytest.mark.parametrize(("path", "command"), ALL)
def test_every_option_is_explained(path: tuple[str, ...], command: Any) -> None:
    for parameter in command.params:
        assert parameter.help, f"{' '.join(path)} {parameter.name}"


@pytest.mark.parametrize("program", [main, kuma_dp, kuma_cp], ids=lambda program: program.app.info.name)
def test_help_cuts_nothing_off_that_has_to_be_typed(program: Any) -> None:
    """At the usual width of a terminal, and without one."""
    for path, command in commands(typer.main.get_command(program.app), ()):
        shown = CliRunner().invoke(program.app, [*path, "--help"], env={"COLUMNS": "80", "TERM": "dumb"}).output
        assert "…" not in shown
        for parameter in command.params:
            for word in (*parameter.opts, parameter.envvar or ""):
                assert word in shown or not word.startswith(("-", "KUMA_")), path
        example = re.search(r"Example: (.*)", command.help, re.DOTALL)
        assert example is not None
        assert all(word in shown for word in example[1].split()), path


def test_the_page_lists_the_commands_of_kumactl() -> None:
    text = PAGE.read_text()
    for path, _ in commands(typer.main.get_command(main.app), ("kumactl",)):
        assert f"`{' '.join(path)}`" in text
