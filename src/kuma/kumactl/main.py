"""`kumactl`: how people and scripts look at a control plane and change it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

import kuma
from kuma.base import command_line
from kuma.base.errors import Misconfigured
from kuma.base.values.printable import LINES, printable
from kuma.kumactl.common_options import CommonOptions
from kuma.kumactl.connection import requests, version_check
from kuma.kumactl.connection.client import RequestFailed
from kuma.kumactl.invocation import Invocation
from kuma.kumactl.later import Later

_COMMANDS = "kuma.kumactl.commands"


class _Commands(CommonOptions, Later):
    """The commands of kumactl."""

    later: ClassVar[Mapping[str, str]] = {
        "apply": f"{_COMMANDS}.apply:app",
        "diff": f"{_COMMANDS}.diff:diff",
        "get": f"{_COMMANDS}.resources:get",
        "export": f"{_COMMANDS}.export:export",
        "preview": f"{_COMMANDS}.preview:preview",
        "check": f"{_COMMANDS}.judge:check",
        "explain": f"{_COMMANDS}.judge:explain_app",
        "suggest": f"{_COMMANDS}.judge:suggest_app",
        "delete": f"{_COMMANDS}.resources:delete",
        "create": f"{_COMMANDS}.create:app",
        "inspect": f"{_COMMANDS}.inspect:app",
        "generate": f"{_COMMANDS}.generate:app",
        "config": f"{_COMMANDS}.config:app",
        "install": f"{_COMMANDS}.install:install",
        "uninstall": f"{_COMMANDS}.install:uninstall",
    }


app = typer.Typer(
    name="kumactl",
    help="Looks at a control plane and changes it.\n\nExample: kumactl apply -f mesh.yaml; kumactl get meshes",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogLevel(StrEnum):
    """Levels of kumactl's own log."""

    OFF = "off"
    INFO = "info"
    DEBUG = "debug"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"Client: Kuma {kuma.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config_file: Annotated[
        Path | None, typer.Option(help="Configuration file; ~/.kumactl/config if not given.")
    ] = None,
    no_config: Annotated[bool, typer.Option("--no-config", help="Use no file: http://localhost:5681.")] = False,
    api_timeout: Annotated[str, typer.Option(help="How long to wait for an answer.")] = "1m",
    log_level: Annotated[LogLevel, typer.Option(help="Tell every request on standard error.")] = LogLevel.OFF,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print kumactl's own version.")
    ] = False,
) -> None:
    """Common options."""
    requests.tell(log_level)
    context.obj = Invocation(config_file, no_config=no_config, timeout=api_timeout)


@app.command()
def version(
    context: typer.Context,
    detailed: Annotated[bool, typer.Option("--detailed", "-a", help="Tell all that both say of themselves.")] = False,
) -> None:
    """Print the versions of kumactl and of the control plane.

    Example: kumactl version --detailed
    """
    own = {"product": version_check.PRODUCT, "version": kuma.__version__, "python": sys.version.partition(" ")[0]}
    typer.echo(f"Client: {json.dumps(own, indent=3)}" if detailed else f"Client: Kuma {kuma.__version__}")
    invocation: Invocation = context.obj
    with invocation.client(greet=False) as client:
        try:
            index = client.index()
        except RequestFailed as error:
            typer.echo(printable(f"Unable to connect to control plane: {error}", keep=LINES), err=True)
            return
    short = f"{version_check.product_of(index)} {index.get('version', '')}"
    typer.echo(f"Server: {json.dumps(index, indent=3) if detailed else printable(short)}")
    if version_check.warning(index):
        typer.echo(printable(version_check.warning(index), keep=LINES), err=True)


@app.command()
def rekey(context: typer.Context) -> None:
    """Seal all Secrets of the control plane anew, under a new key-encryption key; the old one opens nothing any more.

    The control plane goes on working meanwhile. Make a new backup afterwards: old backups need the old key file.

    Example: kumactl rekey
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        client.rekey()
    typer.echo("all Secrets are sealed under a new key-encryption key; back up the new key file")


@app.command("help")
def help_(
    context: typer.Context,
    command: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]...", help="The command's words.")] = None,
) -> None:
    """Explain a command.

    Example: kumactl help get
    """
    group = context.find_root()
    found: Any = group.command
    words: list[str] = []
    for word in command or ():
        below = found.get_command(group, word) if hasattr(found, "get_command") else None
        if below is None:
            raise Misconfigured(f"there is no command kumactl {' '.join([*words, word])}; see: kumactl --help")
        found, words = below, [*words, word]
    typer.echo(found.get_help(found.make_context(" ".join(["kumactl", *words]), [], resilient_parsing=True)))


class Shell(StrEnum):
    """Shells that can complete kumactl's commands."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_ZSH_LAST = "compdef _kumactl_completion kumactl"
_ZSH_FIRST_TIME = f"""\
if [[ $funcstack[1] == _kumactl ]]; then
  _kumactl_completion "$@"
else
  {_ZSH_LAST}
fi"""
"""As a file in `fpath` the script is run by the first TAB, which is to complete something already."""


@app.command()
def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print the script that has your shell complete kumactl's commands, options and kinds.

    Example: kumactl completion bash > ~/.local/share/bash-completion/completions/kumactl
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="kumactl", complete_var="_KUMACTL_COMPLETE", shell=shell)
    typer.echo(script.replace(_ZSH_LAST, _ZSH_FIRST_TIME) if shell is Shell.ZSH else script)


def main() -> None:
    """Entry point."""
    command_line.run(app)
