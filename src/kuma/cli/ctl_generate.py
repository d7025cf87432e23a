"""`kumactl generate`: credentials."""

from __future__ import annotations

from typing import Annotated

import typer

from kuma.base.errors import Misconfigured
from kuma.cli.ctl_resources import MeshOption
from kuma.cli.session import Session

app = typer.Typer(help="Generates credentials.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command("dataplane-token")
def dataplane_token(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Dataplane that may use it; any of the mesh if not given.")] = "",
    mesh: MeshOption = "default",
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="Tag that the Dataplane has to have: name=value1,value2.")
    ] = None,
    proxy_type: Annotated[str, typer.Option(help="Only dataplane.")] = "",
    valid_for: Annotated[str, typer.Option(help="How long it is valid, such as 24h.")] = "720h",
) -> None:
    """Print a token by which a proxy proves which Dataplane it runs for.

    Example: kumactl generate dataplane-token --name web-01 --mesh default --valid-for 24h > token
    """
    tags: dict[str, list[str]] = {}
    for text in tag or ():
        key, equals, values = text.partition("=")
        if not equals:
            raise Misconfigured(f"--tag {text}: has to be name=value")
        tags.setdefault(key, []).extend(values.split(","))
    request = {"name": name, "mesh": mesh, "tags": tags, "type": proxy_type, "validFor": valid_for}
    session: Session = context.obj
    with session.client() as client:
        typer.echo(client.dataplane_token(request), nl=False)
