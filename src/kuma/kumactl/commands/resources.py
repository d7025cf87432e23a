"""`kumactl get` and `kumactl delete`, for every kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from kuma.base import command_line
from kuma.base.errors import KumaError, Misconfigured
from kuma.base.values.printable import LINES, printable
from kuma.kumactl import kind_names, terminal, watching
from kuma.kumactl.connection import paths
from kuma.kumactl.connection.client import Client, RequestFailed
from kuma.kumactl.display import tables
from kuma.kumactl.display.layout import Layout
from kuma.kumactl.invocation import Invocation
from kuma.resources.naming import Naming


class Form(StrEnum):
    """Output formats."""

    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"

    @property
    def is_table(self) -> bool:
        """Tells whether people are to read it."""
        return self in (Form.TABLE, Form.WIDE)


def layout(form: Form) -> Layout:
    """Returns the room for a table: the terminal's, or all that it needs if that is wanted, or a program reads it."""
    return Layout(None if form is Form.WIDE else terminal.width(), terminal.has_colours())


FormOption = Annotated[
    Form, typer.Option("--output", "-o", help="table, wide (all columns, also at a terminal), yaml or json.")
]
MeshOption = Annotated[str, typer.Option("--mesh", "-m", help="Mesh that is meant.")]
WeakeningOption = Annotated[
    bool, typer.Option("--allow-weakening", help="Also if it weakens a mesh that refuses that.")
]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show every change.")]

CERTIFICATES = "certificates"
"""What proxies use now; no resource, but looked at like one."""


def _complete(incomplete: str) -> list[str]:
    return kind_names.starting(incomplete)


def _complete_shown(incomplete: str) -> list[str]:
    return kind_names.starting(incomplete, CERTIFICATES, kind_names.ALL)


def _complete_names(context: typer.Context, incomplete: str) -> list[str]:
    """The names of resources, from the control plane; none if it does not answer."""
    options = context.find_root().params
    invocation = Invocation(options.get("config_file"), no_config=bool(options.get("no_config")), timeout="2s")
    try:
        kind = kind_names.kind(context.params.get("kind") or "")
        with invocation.client(greet=False) as client:
            items = client.list(kind, context.params.get("mesh") or "default", None, None)["items"]
    except KumaError:
        return []
    return [item["name"] for item in items if item["name"].startswith(incomplete)]


def get(
    context: typer.Context,
    kind: Annotated[
        str, typer.Argument(metavar="TYPE", autocompletion=_complete_shown, help="Such as meshes, or mesh.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", autocompletion=_complete_names, help="All are listed without a name."),
    ] = None,
    mesh: MeshOption = "default",
    output: FormOption = Form.TABLE,
    size: Annotated[int | None, typer.Option(min=1, help="How many to list.")] = None,
    offset: Annotated[int | None, typer.Option(min=0, help="How many to pass over first.")] = None,
    watch: WatchOption = False,
) -> None:
    """Show resources. Kinds have short names, too: dp, tp, mtp; `all` shows every kind but Secrets.

    Example: kumactl get meshes    or: kumactl get dataplane web-01 -o yaml    or: kumactl get certificates --watch
    """
    invocation: Invocation = context.obj
    if kind == kind_names.ALL:
        _get_all(invocation, mesh, names, output)
        return
    others = (CERTIFICATES, kind_names.ALL)
    found = _certificates(mesh) if kind == CERTIFICATES else _resources(kind_names.kind(kind, *others), mesh)
    if kind in kind_names.SINGULAR and kind not in kind_names.PLURAL and not names:
        plural = kind_names.SINGULAR[kind].plural
        raise Misconfigured(f"which {kind}? Give its name, or list all with: kumactl get {plural}")

    def draw(whole: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> None:
        typer.echo(found.table(items, layout(output)) if output.is_table else as_text(output, whole))

    def draw_page(page: Mapping[str, Any]) -> None:
        draw({**page, "next": None}, page["items"])
        if page.get("next") and output.is_table:
            following = (offset or 0) + len(page["items"])
            typer.echo(f"\nRerun command with --offset={following} argument to retrieve more resources")

    def draw_several(items: Sequence[Mapping[str, Any]]) -> None:
        draw({"total": len(items), "items": items, "next": None} if len(items) > 1 else items[0], items)

    with invocation.client() as client:
        if names:
            watching.show(watch, lambda: [found.one(client, name) for name in names], draw_several)
        else:
            watching.show(watch, lambda: found.page(client, size, offset), draw_page)


def _get_all(invocation: Invocation, mesh: str, names: Sequence[str] | None, output: Form) -> None:
    """Show what there is of every kind but Secrets."""
    if names:
        raise Misconfigured("all takes no names: it shows every kind")
    with invocation.client() as client:
        found = {kind: client.list(kind, mesh, None, None)["items"] for kind in kind_names.OF_ALL}
    if not output.is_table:
        items = [item for listed in found.values() for item in listed]
        typer.echo(as_text(output, {"total": len(items), "items": items, "next": None}))
        return
    shown = [
        f"{kind.name}\n{tables.resources(kind.name, kind.in_mesh, items, datetime.now(UTC), layout(output))}"
        for kind, items in found.items()
        if items
    ]
    typer.echo("\n\n".join(shown))


@dataclass(frozen=True, slots=True)
class _Shown:
    """Access of `get` to what it shows: one item, a page of items, and their table."""

    one: Callable[[Client, str], Mapping[str, Any]]
    page: Callable[[Client, int | None, int | None], Mapping[str, Any]]
    table: Callable[[Sequence[Mapping[str, Any]], Layout], str]


def _resources(kind: Naming, mesh: str) -> _Shown:
    def one(client: Client, name: str) -> Mapping[str, Any]:
        item = client.get(kind, name, mesh)
        if item is None:
            where = f" in {mesh} mesh" if kind.in_mesh else ""
            raise RequestFailed(f'No resources found{where}: there is no {kind.name} "{name}"', 404)
        return item

    return _Shown(
        one,
        lambda client, size, offset: client.list(kind, mesh, size, offset),
        lambda items, room: tables.resources(kind.name, kind.in_mesh, items, datetime.now(UTC), room),
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
    typer.echo(table() if form.is_table else as_text(form, {"total": len(items), "items": items, "next": None}))


def delete(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="TYPE", autocompletion=_complete, help="Such as mesh.")],
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", autocompletion=_complete_names, help="Of what is to be deleted.")
    ],
    mesh: MeshOption = "default",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing: ask the control plane whether it would.")
    ] = False,
    allow_weakening: WeakeningOption = False,
) -> None:
    """Delete resources of one kind.

    Example: kumactl delete traffic-permission allow-all --mesh default
    """
    found = kind_names.kind(kind)
    invocation: Invocation = context.obj
    with invocation.client() as client:
        for name in names:
            for warning in client.delete(found, name, mesh, allow_weakening=allow_weakening, dry_run=dry_run):
                command_line.warn(warning)
            typer.echo(f'deleted {found.name} "{name}"{" (dry run)" if dry_run else ""}')


def as_text(form: Form, content: Any) -> str:
    """JSON or YAML, as the original indents and orders them; escaped if it would command a terminal otherwise."""
    if form is Form.JSON:
        return _shown(lambda whole: json.dumps(content, indent=2, ensure_ascii=not whole))
    import yaml  # tables need none

    return _shown(lambda whole: yaml.safe_dump(content, sort_keys="items" in content, allow_unicode=whole)).rstrip("\n")


def _shown(text: Callable[[bool], str]) -> str:
    """Returns a text as it is if that can be shown, or else with all but ASCII escaped."""
    found = text(True)
    return found if printable(found, keep=LINES) == found else text(False)
