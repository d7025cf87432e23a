"""`kumactl preview`: what a change would do to whom, before it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from kuma.base import texts
from kuma.base.errors import InvalidResource, Misconfigured
from kuma.base.values.variables import pairs
from kuma.kumactl import input_files, kind_names, offline_preview
from kuma.kumactl.commands.resources import Form, FormOption, MeshOption, as_text, layout
from kuma.kumactl.display import foresight
from kuma.kumactl.invocation import Invocation
from kuma.resources import codec
from kuma.resources.resource import Key, Resource

BREAKS = 2
"""The exit status if somebody who calls today would be refused."""


def preview(
    context: typer.Context,
    file: Annotated[
        list[str] | None, typer.Option("--file", "-f", help="File, directory, URL, or `-`: what would be applied.")
    ] = None,
    delete: Annotated[
        list[str] | None, typer.Option("--delete", help="TYPE/NAME of what would be deleted: tp/allow-all.")
    ] = None,
    mesh: MeshOption = "default",
    var: Annotated[list[str] | None, typer.Option("--var", "-v", help="name=value for {{ name }} in the text.")] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Offline: what is stored, as `kumactl export` prints it.")
    ] = None,
    recording: Annotated[
        Path | None, typer.Option("--recording", help="Offline: `kumactl inspect traffic -o json` of the mesh.")
    ] = None,
    within: Annotated[
        str, typer.Option("--within", help="Only callers that called within so long, such as 7d: others are gone.")
    ] = "",
    output: FormOption = Form.TABLE,
) -> None:
    """Say what a change would do to whom: who would be refused or let in, who cannot follow, and how long it takes.

    Nothing is changed. The exit status is 0 if nothing breaks, 2 if somebody who calls today would be refused, 1 for an
    error. Whether a mesh can be made STRICT is answered by the preview of that one line.

    Example: kumactl preview -f mesh.yaml    or: kumactl preview --delete tp/allow-all -o json
    """
    contents = input_files.read(file or (), pairs(input_files.VARIABLE, var or ()))
    resources = [declared.resource for declared in contents.resources]
    keys = [_key(text, mesh) for text in delete or ()]
    if not resources and not keys:
        raise Misconfigured("there is no change to preview; name one with --file or --delete")
    if (export is None) != (recording is None):
        raise Misconfigured("--export and --recording belong together: offline, both are needed")
    if export is not None and recording is not None:
        stored = [declared.resource for declared in input_files.read([str(export)], {}).resources]
        found = offline_preview.answer(stored, _recorded(recording), resources, keys, datetime.now(UTC), within)
    else:
        found = _asked(context.obj, resources, keys, within)
    now = datetime.now(UTC)
    typer.echo(foresight.preview(found, now, layout(output)) if output.is_table else as_text(output, found))
    if found["breaks"]:
        raise typer.Exit(BREAKS)


def _asked(
    invocation: Invocation, resources: Sequence[Resource[Any]], keys: Sequence[Key], within: str
) -> Mapping[str, Any]:
    with invocation.client() as client:
        return client.preview(
            [codec.to_universal(one) for one in resources],
            [{"type": key.kind, "mesh": key.mesh, "name": key.name} for key in keys],
            within,
        )


def _key(text: str, mesh: str) -> Key:
    kind, slash, name = text.partition("/")
    if not (slash and name):
        raise Misconfigured(f'--delete has to be TYPE/NAME, such as tp/allow-all; got "{text[:100]}"')
    return kind_names.kind(kind).key(name, mesh)


def _recorded(path: Path) -> Sequence[Mapping[str, Any]]:
    """Reads what `kumactl inspect traffic -o json` has printed."""
    try:
        found = json.loads(texts.read(str(path)))
        items = found["items"]
        if not isinstance(items, list):
            raise TypeError
    except OSError as error:
        raise Misconfigured(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, InvalidResource):
        raise Misconfigured(f"{path} is no recording; make one: kumactl inspect traffic -o json") from None
    return items
