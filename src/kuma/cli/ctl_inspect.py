"""`kumactl inspect`: what the control plane has found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from kuma.base.errors import Misconfigured
from kuma.cli import tables
from kuma.cli.ctl_resources import Form, FormOption, MeshOption, as_text
from kuma.cli.session import Session

app = typer.Typer(help="Shows what the control plane has found out.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def dataplanes(
    context: typer.Context,
    mesh: MeshOption = "default",
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Only those with this tag: name=value.")] = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Show the proxies of a mesh: are they online, what do they run, until when are their certificates valid?

    Example: kumactl inspect dataplanes --tag kuma.io/service=web
    """
    wanted = [_pair(text) for text in tag or ()]
    session: Session = context.obj
    with session.client() as client:
        items = [item for item in client.overviews(mesh) if _carries(item, wanted)]
    if output is Form.TABLE:
        typer.echo(tables.overviews(items, datetime.now(UTC)))
    else:
        typer.echo(as_text(output, {"total": len(items), "items": items, "next": None}))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Misconfigured(f"--tag {text}: has to be name=value")
    return name, value


def _carries(item: Mapping[str, Any], wanted: Sequence[tuple[str, str]]) -> bool:
    """Whether one of the inbounds has all the tags."""
    inbounds = item.get("dataplane", {}).get("networking", {}).get("inbound", ())
    return not wanted or any(all(i.get("tags", {}).get(n) == v for n, v in wanted) for i in inbounds)
