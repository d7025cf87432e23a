"""`kumactl diff`: what applying files would change."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import typer
import yaml

from kuma.base import command_line
from kuma.base.errors import KumaError
from kuma.kumactl import dry_run
from kuma.kumactl.commands import apply
from kuma.kumactl.commands.apply import FileOption, StrictOption, VarOption
from kuma.kumactl.commands.resources import WeakeningOption
from kuma.kumactl.dry_run import Expected
from kuma.kumactl.invocation import Invocation
from kuma.kumactl.terminal import has_colours

_DIFFERENT, _FAILED = 1, 2
_TIMES = ("creationTime", "modificationTime")
_COLOURS = {"+": typer.colors.GREEN, "-": typer.colors.RED, "@": typer.colors.CYAN}


def diff(
    context: typer.Context,
    file: FileOption,
    var: VarOption = None,
    strict: StrictOption = False,
    allow_weakening: WeakeningOption = False,
) -> None:
    """Show what applying files would change, as the control plane tells. Nothing is applied.

    The exit status is 0 if nothing would change, 1 if something would, and 2 if that cannot be told.

    Example: kumactl diff -f mesh.yaml
    """
    try:
        declared = {one.resource.key: one for one in apply.read(file, var, strict=strict)}
        invocation: Invocation = context.obj
        with invocation.client() as client:
            meshes = apply.existing(client, declared.values())
            expected = dry_run.ask(client, declared, meshes, strict=strict, weakening=allow_weakening)
    except KumaError as error:
        command_line.tell_error(error)
        raise typer.Exit(_FAILED) from None
    for warning in dry_run.warnings(expected):
        command_line.warn(warning)
    changed = [one for one in expected if one.changed]
    for line in (line for one in changed for line in _lines(one)):
        typer.secho(line, fg=_COLOURS.get(line[:1]) if has_colours() else None)
    if changed:
        raise typer.Exit(_DIFFERENT)


def _lines(one: Expected) -> Iterator[str]:
    """A difference as `diff -u` writes it. Of a Secret's content only that it differs is known here."""
    before, after = _text(one.before), _text(one.after)
    yield from difflib.unified_diff(before, after, f"{one.key}, now", f"{one.key}, if applied", lineterm="")
    if before == after:
        yield from (f"--- {one.key}, now", f"+++ {one.key}, if applied", "-data: '***'", "+data: '*** (another)'")


def _text(document: Mapping[str, Any]) -> list[str]:
    shown = {name: value for name, value in document.items() if name not in _TIMES}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True).splitlines() if shown else []
