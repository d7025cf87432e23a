"""`kumactl get` and `kumactl delete`, for every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml

from kuma.base.errors import Misconfigured
from kuma.kumactl import foreign_kinds, paths, watching
from kuma.kumactl.client import Client, RequestFailed
from kuma.kumactl.display import tables
from kuma.kumactl.invocation import Invocation
from kuma.resources import kinds
from kuma.resources.kinds import Kind


class Form(StrEnum):
    """Output formats."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


FormOption = Annotated[Form, typer.Option("--output", "-o", help="table, yaml or json.")]
MeshOption = Annotated[str, typer.Option("--mesh", "-m", help="Mesh that is meant.")]
WeakeningOption = Annotated[
    bool, typer.Option("--allow-weakening", help="Also if it weakens a mesh that refuses that.")
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show every change.")]

_SHOWN = (*(kind for kind in kinds.ALL if not kind.read_only), *foreign_kinds.ALL)
_SINGLE = {kind.singular: kind for kind in _SHOWN} | {"globalsecret": kinds.GLOBAL_SECRET}
_LISTS = {kind.plural: kind for kind in _SHOWN} | {"globalsecrets": kinds.GLOBAL_SECRET}

CERTIFICATES = "certificates"
"""What proxies use now; no resource, but looked at like one."""


def _complete(incomplete: str) -> list[str]:
    return [name for name in sorted({*_SINGLE, *_LISTS}) if name.startswith(incomplete)]


def _complete_shown(incomplete: str) -> list[str]:
    return [*_complete(incomplete), *([CERTIFICATES] if CERTIFICATES.startswith(incomplete) else ())]


def get(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(metavar="TYPE", autocompletion=_complete_shown, help="Such as meshes, or mesh.")
    ],
    name: Annotated[str, typer.Argument(help="Of the one that is wanted; all are listed without it.")] = "",
    mesh: MeshOption = "default",
    output: FormOption = Form.TABLE,
    size: Annotated[int | None, typer.Option(min=1, help="How many to list.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="How many to pass over first.")] = None,
    watch: WatchOption = False,
) -> None:
    """Show resources.

    Example: kumactl get meshes    or: kumactl get dataplane web-01 -o yaml    or: kumactl get certificates --watch
    """
    invocation: Invocation = context.obj
    found = _certificates(mesh) if kind == CERTIFICATES else _resources(_kind(kind, CERTIFICATES), mesh)
    if kind in _SINGLE and kind not in _LISTS and not name:
        raise Misconfigured(f"which {kind}? Give its name, or list all with: kumactl get {_SINGLE[kind].plural}")

    def draw(whole: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
        typer.echo(found.table(items) if output is Form.TABLE else as_text(output, whole))

    def draw_page(page: Mapping[str, Any]) -> None:
        draw({**page, "next": None}, page["items"])
        if page.get("next") and output is Form.TABLE:
            following = (offset or 0) + len(page["items"])
            typer.echo(f"\nRerun command with --offset={following} argument to retrieve more resources")

    with invocation.client() as client:
        if name:
            watching.show(watch, lambda: found.one(client, name), lambda item: draw(item, [item]))
        else:
            watching.show(watch, lambda: found.page(client, size, offset), draw_page)


@dataclass(frozen=True, slots=True)
class _Shown:
    """Access of `get` to what it shows: one item, a page of items, and their table."""

    one: Callable[[Client, str], Mapping[str, Any]]
    page: Callable[[Client, int | None, int | None], Mapping[str, Any]]
    table: Callable[[Sequence[Mapping[str, Any]]], str]


def _resources(kind: Kind, mesh: str) -> _Shown:
    def one(client: Client, name: str) -> Mapping[str, Any]:
        item = client.get(kind, name, mesh)
        if item is None:
            raise RequestFailed("No resources found" + (f" in {mesh} mesh" if kind.in_mesh else ""), 404)
        return item

    return _Shown(
        one,
        lambda client, size, offset: client.list(kind, mesh, size, offset),
        lambda items: tables.resources(kind.name, kind.in_mesh, items, datetime.now(UTC)),
    )


def _certificates(mesh: str) -> _Shown:
    path = paths.within(mesh, CERTIFICATES)

    def one(client: Client, name: str) -> Mapping[str, Any]:
        for item in client.list_whole(path):
            if item["name"] == name:
                return item
        raise RequestFailed(f'Dataplane "{name}" in mesh "{mesh}" has no certificate', 404)

    def page(client: Client, size: int | None, offset: int | None) -> Mapping[str, Any]:
        """Fetches all items, or one page if a part is asked for."""
        if size is None and offset is None:
            items = client.list_whole(path)
            return {"total": len(items), "items": items, "next": None}
        return client.page(path, size, offset)

    return _Shown(one, page, tables.certificates)


def show_list(items: Sequence[Mapping[str, Any]], form: Form, table: Callable[[], str]) -> None:
    """A whole list: as `table` has it, or as the API would answer it."""
    typer.echo(table() if form is Form.TABLE else as_text(form, {"total": len(items), "items": items, "next": None}))


def delete(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="TYPE", autocompletion=_complete, help="Such as mesh.")],
    name: Annotated[str, typer.Argument(help="Of what is to be deleted.")],
    mesh: MeshOption = "default",
    allow_weakening: WeakeningOption = False,
) -> None:
    """Delete a resource.

    Example: kumactl delete traffic-permission allow-all --mesh default
    """
    found = _kind(kind)
    invocation: Invocation = context.obj
    with invocation.client() as client:
        for warning in client.delete(found, name, mesh, allow_weakening=allow_weakening):
            typer.echo(f"Warning: {warning}", err=True)
    typer.echo(f'deleted {found.name} "{name}"')


def _kind(name: str, *others: str) -> Kind:
    """The kind of that name; `others` may be asked for too."""
    found = _SINGLE.get(name) or _LISTS.get(name)
    if found is None:
        raise Misconfigured(f"unknown TYPE: {name}. Allowed values: {', '.join(sorted({*_SINGLE, *_LISTS, *others}))}")
    return found


def as_text(form: Form, content: Any) -> str:
    """JSON or YAML, as the original indents and orders them."""
    if form is Form.JSON:
        return json.dumps(content, indent=2, ensure_ascii=False)
    return yaml.safe_dump(content, sort_keys="items" in content, allow_unicode=True).rstrip("\n")
