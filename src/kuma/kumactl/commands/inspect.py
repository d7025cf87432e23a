"""`kumactl inspect`: what the control plane has found out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar
from urllib.parse import urlencode

import typer

from kuma.base.errors import Misconfigured
from kuma.base.values import durations
from kuma.base.values.printable import LINES, printable
from kuma.base.values.variables import pair
from kuma.kumactl import watching
from kuma.kumactl.commands import inspect_zones
from kuma.kumactl.commands.resources import Form, FormOption, MeshOption, WatchOption, layout, show_list
from kuma.kumactl.connection import paths
from kuma.kumactl.connection.client import Client, RequestFailed
from kuma.kumactl.display import mesh_tables, tables
from kuma.kumactl.invocation import Invocation
from kuma.kumactl.later import Aliased
from kuma.resources import naming
from kuma.resources.naming import Naming


class _Commands(Aliased):
    """Kinds are called as `get` calls them."""

    aliases: ClassVar[Mapping[str, str]] = {
        "dp": "dataplanes",
        "mesh": "meshes",
        "service": "services",
        "tp": "traffic-permission",
        "traffic-permissions": "traffic-permission",
        "mtp": "meshtrafficpermission",
        "meshtrafficpermissions": "meshtrafficpermission",
        "zone": "zones",
        "zoneingresses": "zone-ingresses",
        "zone-egresses": "zoneegresses",
    }
    of_one: ClassVar[Mapping[str, str]] = {"dp": "dataplane", "dataplanes": "dataplane"}


app = typer.Typer(cls=_Commands, help="Shows what the control plane has found out.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def dataplanes(
    context: typer.Context,
    mesh: MeshOption = "default",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="Only those with this tag: name=value, part of it, or name=*.")
    ] = None,
    gateway: Annotated[bool, typer.Option("--gateway", help="Only gateways.")] = False,
    ingress: Annotated[bool, typer.Option("--ingress", help="Changes nothing, as in the original.")] = False,
    output: FormOption = Form.TABLE,
    watch: WatchOption = False,
) -> None:
    """Show the proxies of a mesh: are they online, what do they run, until when are their certificates valid?

    Example: kumactl inspect dataplanes --tag kuma.io/service=web --watch
    """
    flags = {name: "true" for name, on in (("gateway", gateway), ("ingress", ingress)) if on}
    filters = {**flags, "tag": [":".join(pair("--tag", text)) for text in tag or ()]}
    path = paths.within(mesh, "dataplanes+insights")
    invocation: Invocation = context.obj
    with invocation.client() as client:
        watching.show(
            watch,
            lambda: client.list_whole(path, filters=filters),
            lambda items: show_list(items, output, lambda: tables.overviews(items, datetime.now(UTC), layout(output))),
        )


@app.command()
def meshes(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="[MESH]", help="With --watch: end when its staged change is complete.")
    ] = "",
    output: FormOption = Form.TABLE,
    watch: WatchOption = False,
    timeout: Annotated[
        str, typer.Option(help="How long to follow the change of MESH at most; the exit status is 1 then.")
    ] = "5m",
) -> None:
    """Show where the mutual TLS of each mesh stands, whom a change waits for, and until when the CAs are valid.

    Example: kumactl inspect meshes    or: kumactl inspect meshes --watch default --timeout 1m
    """
    invocation: Invocation = context.obj
    if watch and name:
        if output is not Form.TABLE:
            raise Misconfigured("--watch MESH prints lines; it cannot be given together with --output")
        _follow(invocation, name, _duration(timeout))
        return
    with invocation.client() as client:
        watching.show(
            watch,
            lambda: _meshes(client, name),
            lambda found: show_list(found, output, lambda: _mesh_table(found, output)),
        )


def _meshes(client: Client, name: str) -> Sequence[Mapping[str, Any]]:
    """The Meshes, or the one of that name, with the staged change and the plaintext callers of each, where known."""
    items = [item for item in client.list_whole("/meshes") if name in ("", item["name"])]
    if name and not items:
        raise Misconfigured(f'there is no Mesh "{name}"')
    transitions = {item["mesh"]: item for item in client.list_if_known("/mesh-transitions")}
    traffic = {item["mesh"]: item for item in client.list_if_known("/observed-traffic")}
    return [
        {**item, "transition": transitions.get(item["name"]), "observedTraffic": traffic.get(item["name"])}
        for item in items
    ]


def _mesh_table(found: Sequence[Mapping[str, Any]], output: Form) -> str:
    transitions, traffic = (
        {item["name"]: item[part] or {} for item in found} for part in ("transition", "observedTraffic")
    )
    return mesh_tables.meshes(found, transitions, traffic, datetime.now(UTC), layout(output))


@app.command()
def traffic(
    context: typer.Context,
    mesh: MeshOption = "default",
    service: Annotated[str, typer.Option("--service", help="Only callers of this service.")] = "",
    plaintext: Annotated[bool, typer.Option("--plaintext", help="Only callers in plaintext.")] = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Show who has called whom, and how: mesh TLS, a TLS of their own or plaintext; allowed or refused.

    Example: kumactl inspect traffic --plaintext    or: kumactl inspect traffic --service backend -o json
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        items = client.list_whole(paths.within(mesh, "observed-traffic"))
    chosen = [
        item for item in items if service in ("", item["service"]) and (not plaintext or item["how"] == "plaintext")
    ]
    show_list(chosen, output, lambda: tables.traffic(chosen, datetime.now(UTC), layout(output)))


class View(StrEnum):
    """Views of a proxy."""

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
    output: FormOption = Form.TABLE,
) -> None:
    """Show which permissions act on a proxy, or what it should be running.

    Example: kumactl inspect dataplane web-01 --type config-dump
    """
    view = View.CONFIG_DUMP if config_dump else view
    if (shadow or include) and view is not View.CONFIG:
        raise Misconfigured("--shadow and --include need --type=config")
    if output is Form.YAML and view is not View.POLICIES:
        raise Misconfigured("--output=yaml needs --type=policies; the others are there as json")
    query: list[tuple[str, str]] = []
    if view is View.CONFIG:
        query = [("shadow", str(shadow).lower()), *(("include", part) for part in include or ())]
    elif output is Form.JSON:
        query = [("format", "json")]
    key = naming.DATAPLANE.key(name, mesh)
    invocation: Invocation = context.obj
    with invocation.client() as client:
        if view is View.POLICIES:
            items = client.items_of(key, "policies")
            show_list(items, output, lambda: tables.policies(items))
        else:
            found = client.text_of(key, "?".join(filter(None, (_PATHS[view], urlencode(query)))))
            typer.echo(printable(found, keep=LINES), nl=False)  # it is what an Envoy says of itself


@app.command()
def services(
    context: typer.Context, mesh: MeshOption = "default", output: FormOption = Form.TABLE, watch: WatchOption = False
) -> None:
    """Show the services of a mesh: how many of their proxies are online?

    Example: kumactl inspect services --mesh default
    """
    path = paths.within(mesh, "service-insights")
    invocation: Invocation = context.obj
    with invocation.client() as client:
        watching.show(
            watch,
            lambda: client.list_whole(path),
            lambda items: show_list(items, output, lambda: tables.services(items, layout(output))),
        )


@app.command("control-planes")
def control_planes(context: typer.Context, output: FormOption = Form.TABLE) -> None:
    """Show the control planes over the same store: since when, how many proxies, who leads, and how clocks differ.

    Example: kumactl inspect control-planes
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        items = client.list_whole("/control-planes")
    show_list(items, output, lambda: tables.control_planes(items, datetime.now(UTC), layout(output)))


def _policy(kind: Naming) -> None:
    example = f"kumactl inspect {kind.singular} allow-all --mesh default"

    @app.command(kind.singular, help=f"Show on which proxies a {kind.name} acts.\n\nExample: {example}")
    def policy(
        context: typer.Context,
        name: Annotated[str, typer.Argument(help="Of the permission.")],
        mesh: MeshOption = "default",
        new_api: Annotated[bool, typer.Option("--new-api", help="List the dataplanes, without their parts.")] = False,
        output: FormOption = Form.TABLE,
    ) -> None:
        key = kind.key(name, mesh)
        invocation: Invocation = context.obj
        with invocation.client() as client:
            if new_api:
                items = client.list_whole(f"{paths.item(key)}/_resources/dataplanes", about=str(key))
                show_list(items, output, lambda: tables.names(items))
            else:
                items = client.items_of(key, "dataplanes")
                show_list(items, output, lambda: tables.affected(items))


for _name, _command in (
    ("zones", inspect_zones.zones),
    ("zone-ingresses", inspect_zones.zone_ingresses),
    ("zoneegresses", inspect_zones.zone_egresses),
):
    app.command(_name)(_command)
for _kind in (naming.TRAFFIC_PERMISSION, naming.MESH_TRAFFIC_PERMISSION):
    _policy(_kind)


def _duration(text: str) -> float:
    try:
        return durations.parse_go_duration(text).total_seconds()
    except ValueError as error:
        raise Misconfigured(f"--timeout {error}") from None


def _follow(invocation: Invocation, mesh: str, seconds: float) -> None:
    """Print each step as it comes; ends when the change is complete.

    A control plane that restarts is waited for, and one that hangs, but not beyond the time that there is.
    """
    end, printed = time.monotonic() + seconds, ""
    with invocation.client(at_most=seconds) as client:
        while True:
            client.wait_at_most(end - time.monotonic())
            found, line = _progress(client, mesh)
            if line != printed:
                typer.echo(printable(line))
                printed = line
            if found.get("complete"):
                return
            if time.monotonic() > end:
                raise Misconfigured(f"the change was not complete within {seconds:.0f} seconds")
            time.sleep(_FOLLOW_INTERVAL)


def _progress(client: Client, mesh: str) -> tuple[Mapping[str, Any], str]:
    """Fetches the position of a rollout, and the line that describes it."""
    try:
        found = client.get(naming.MESH_TRANSITION, mesh, mesh)
        if found is None and client.get(naming.MESH, mesh, "") is None:
            raise Misconfigured(f'there is no Mesh "{mesh}"')
    except RequestFailed as error:
        if not error.passes:
            raise
        return {}, "the control plane does not answer; waiting for it"
    if found is None:
        return {"complete": True}, "complete"
    return found, mesh_tables.progress(found)


_FOLLOW_INTERVAL = 0.2
