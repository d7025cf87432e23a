"""`kumactl inspect`: what the control plane has found out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from kuma.base.errors import Misconfigured
from kuma.cli import ctl_inspect_zones, paths, tables, watching
from kuma.cli.client import Client, RequestFailed
from kuma.cli.ctl_resources import Form, FormOption, MeshOption, WatchOption, as_text
from kuma.cli.session import Session
from kuma.resources import durations, kinds
from kuma.resources.kinds import Kind

app = typer.Typer(help="Shows what the control plane has found out.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def dataplanes(
    context: typer.Context,
    mesh: MeshOption = "default",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only those with this tag: name=value.")] = None,
    gateway: Annotated[bool, typer.Option("--gateway", help="Only gateways, of which there are none.")] = False,
    ingress: Annotated[bool, typer.Option("--ingress", help="Changes nothing, as in the original.")] = False,
    output: FormOption = Form.TABLE,
    watch: WatchOption = False,
) -> None:
    """Show the proxies of a mesh: are they online, what do they run, until when are their certificates valid?

    Example: kumactl inspect dataplanes --tag kuma.io/service=web --watch
    """
    wanted = [_pair(text) for text in tag or ()]
    filters = {name: "true" for name, on in (("gateway", gateway), ("ingress", ingress)) if on}
    session: Session = context.obj
    with session.client() as client:

        def look() -> Sequence[Mapping[str, Any]]:
            items = client.list_whole(paths.within(mesh, "dataplanes+insights"), filters=filters)
            return [item for item in items if _carries(item, wanted)]

        watching.show(watch, look, lambda items: _show_dataplanes(items, output))


def _show_dataplanes(items: Sequence[Mapping[str, Any]], output: Form) -> None:
    if output is Form.TABLE:
        typer.echo(tables.overviews(items, datetime.now(UTC)))
    else:
        typer.echo(as_text(output, {"total": len(items), "items": items, "next": None}))


@app.command()
def meshes(
    context: typer.Context,
    output: FormOption = Form.TABLE,
    watch: Annotated[
        str, typer.Option("--watch", help="Follow the staged change of this mesh until it is complete.")
    ] = "",
    timeout: Annotated[str, typer.Option(help="How long to follow at most; the exit status is 1 then.")] = "5m",
) -> None:
    """Show where the mutual TLS of each mesh stands, whom a change waits for, and until when the CAs are valid.

    Example: kumactl inspect meshes    or: kumactl inspect meshes --watch default --timeout 1m
    """
    session: Session = context.obj
    if watch:
        _follow(session, watch, _duration(timeout))
        return
    with session.client() as client:
        items = client.list_whole("/meshes")
        transitions = {item["mesh"]: item for item in client.list_whole("/mesh-transitions")}
    if output is Form.TABLE:
        typer.echo(tables.meshes(items, transitions, datetime.now(UTC)))
    else:
        found = [{**item, "transition": transitions.get(item["name"])} for item in items]
        typer.echo(as_text(output, {"total": len(found), "items": found, "next": None}))


class View(StrEnum):
    """What of a proxy is shown."""

    POLICIES = "policies"
    CONFIG_DUMP = "config-dump"
    CONFIG = "config"
    STATS = "stats"
    CLUSTERS = "clusters"


_PATHS = {View.CONFIG_DUMP: "xds", View.CONFIG: "_config", View.STATS: "stats", View.CLUSTERS: "clusters"}


@app.command()
def dataplane(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the dataplane.")],
    mesh: MeshOption = "default",
    view: Annotated[View, typer.Option("--type", help="What is wanted of it.")] = View.POLICIES,
    config_dump: Annotated[bool, typer.Option("--config-dump", help="Short for --type=config-dump.")] = False,
    shadow: Annotated[bool, typer.Option("--shadow", help="With --type=config: with shadow policies.")] = False,
    include: Annotated[list[str] | None, typer.Option("--include", help="With --type=config: diff.")] = None,
) -> None:
    """Show which permissions act on a proxy, or what it should be running.

    Example: kumactl inspect dataplane web-01 --type config-dump
    """
    view = View.CONFIG_DUMP if config_dump else view
    if (shadow or include) and view is not View.CONFIG:
        raise Misconfigured("--shadow and --include need --type=config")
    key = kinds.DATAPLANE.key(name, mesh)
    query = urlencode([("shadow", str(shadow).lower()), *(("include", part) for part in include or ())])
    session: Session = context.obj
    with session.client() as client:
        if view is View.POLICIES:
            typer.echo(tables.policies(client.items_of(key, "policies")))
        else:
            typer.echo(client.text_of(key, _PATHS[view] + (f"?{query}" if view is View.CONFIG else "")), nl=False)


@app.command()
def services(context: typer.Context, mesh: MeshOption = "default", output: FormOption = Form.TABLE) -> None:
    """Show the services of a mesh: how many of their proxies are online?

    Example: kumactl inspect services --mesh default
    """
    session: Session = context.obj
    with session.client() as client:
        items = client.list_whole(paths.within(mesh, "service-insights"))
    if output is Form.TABLE:
        typer.echo(tables.services(items))
    else:
        typer.echo(as_text(output, {"total": len(items), "items": items, "next": None}))


def _policy(kind: Kind) -> None:
    example = f"kumactl inspect {kind.singular} allow-all --mesh default"

    @app.command(kind.singular, help=f"Show on which proxies a {kind.name} acts.\n\nExample: {example}")
    def policy(
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="Of the permission.")],
        mesh: MeshOption = "default",
        new_api: Annotated[bool, typer.Option("--new-api", help="List the dataplanes, without their parts.")] = False,
    ) -> None:
        session: Session = context.obj
        with session.client() as client:
            if new_api:
                found = client.list_whole(f"{paths.item(kind.key(name, mesh))}/_resources/dataplanes")
                rows = [(item["type"], item["mesh"], item["name"]) for item in found]
                typer.echo(f"{tables.table(('Type', 'Mesh', 'Name'), rows)}\nTotal: {len(rows)}")
                return
            typer.echo(tables.affected(client.items_of(kind.key(name, mesh), "dataplanes")))


for _name, _command in (
    ("zones", ctl_inspect_zones.zones),
    ("zone-ingresses", ctl_inspect_zones.zone_ingresses),
    ("zoneegresses", ctl_inspect_zones.zone_egresses),
):
    app.command(_name)(_command)
for _kind in (kinds.TRAFFIC_PERMISSION, kinds.MESH_TRAFFIC_PERMISSION):
    _policy(_kind)


def _duration(text: str) -> float:
    try:
        return durations.parse_go_duration(text).total_seconds()
    except ValueError as error:
        raise Misconfigured(f"--timeout {error}") from None


def _follow(session: Session, mesh: str, seconds: float) -> None:
    """Print each step as it comes; ends when the change is complete.

    A control plane that restarts is waited for, and one that hangs, but not beyond the time that there is.
    """
    end, printed = time.monotonic() + seconds, ""
    with session.client(at_most=seconds) as client:
        while True:
            client.wait_at_most(end - time.monotonic())
            found, line = _progress(client, mesh)
            if line != printed:
                typer.echo(line)
                printed = line
            if found.get("complete"):
                return
            if time.monotonic() > end:
                raise Misconfigured(f"the change was not complete within {seconds:.0f} seconds")
            time.sleep(_FOLLOW_INTERVAL)


def _progress(client: Client, mesh: str) -> tuple[Mapping[str, Any], str]:
    """Where a change is, and the line that says so."""
    try:
        found = client.get(kinds.MESH_TRANSITION, mesh, mesh)
        if found is None and client.get(kinds.MESH, mesh, "") is None:
            raise Misconfigured(f'there is no Mesh "{mesh}"')
    except RequestFailed as error:
        if not error.passes:
            raise
        return {}, "the control plane does not answer; waiting for it"
    if found is None:
        return {"complete": True}, "complete"
    return found, tables.progress(found)


_FOLLOW_INTERVAL = 0.2


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Misconfigured(f"--tag {text}: has to be name=value")
    return name, value


def _carries(item: Mapping[str, Any], wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether one of the inbounds has all the tags."""
    inbounds = item.get("dataplane", {}).get("networking", {}).get("inbound", ())
    return not wanted or any(all(i.get("tags", {}).get(n) == v for n, v in wanted) for i in inbounds)
