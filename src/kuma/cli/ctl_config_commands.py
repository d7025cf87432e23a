"""`kumactl config`: which control plane is meant."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

import typer
import yaml

from kuma.base.errors import Misconfigured
from kuma.cli import ctl_config, tables
from kuma.cli.client import Client
from kuma.cli.ctl_config import ApiServer
from kuma.cli.session import Session

app = typer.Typer(help="Chooses the control plane.", no_args_is_help=True)
planes = typer.Typer(help="Adds, lists, removes and switches control planes.", no_args_is_help=True)
app.add_typer(planes, name="control-planes")
_CHECK_TIMEOUT = 10.0


@app.command()
def view(context: typer.Context) -> None:
    """Print the configuration."""
    session: Session = context.obj
    content = session.config().model_dump(by_alias=True, exclude_defaults=True, mode="json")
    for plane in content.get("controlPlanes", ()):
        server = plane["coordinates"]["apiServer"]
        for secret in ("authConf", "headers"):
            if secret in server:
                server[secret] = "*****"
    typer.echo(yaml.safe_dump(content), nl=False)


@planes.command("list")
def list_(context: typer.Context) -> None:
    """List the control planes that are known."""
    session: Session = context.obj
    config = session.config()
    active = next((c.control_plane for c in config.contexts if c.name == config.current_context), "")
    rows = [("*" if p.name == active else "", p.name, p.coordinates.api_server.url) for p in config.control_planes]
    typer.echo(tables.table(("ACTIVE", "NAME", "ADDRESS"), rows))


@planes.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="How it is to be called.")],
    address: Annotated[str, typer.Option(help="URL of its API, such as http://localhost:5681.")],
    ca_cert_file: Annotated[str, typer.Option(help="CA by which an https address is verified, PEM.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace one of the same name.")] = False,
    skip_check: Annotated[bool, typer.Option("--skip-check", help="Do not ask it what it is.")] = False,
) -> None:
    """Add a control plane and switch to it.

    Example: kumactl config control-planes add --name prod --address http://localhost:5681
    """
    session: Session = context.obj
    config = session.config()
    if not overwrite and any(plane.name == name for plane in config.control_planes):
        raise Misconfigured(
            f'Control Plane with name "{name}" already exists. Use --overwrite to replace an existing one.'
        )
    if urlsplit(address).scheme not in ("http", "https"):
        raise Misconfigured(f"--address {address}: has to be an http or https URL")
    if not skip_check:
        _check(address, ca_cert_file)
    ctl_config.save(session.path, config.adding(name, ApiServer(url=address, ca_cert_file=ca_cert_file)))
    typer.echo(f'added Control Plane "{name}"\nswitched active Control Plane to "{name}"')


def _check(address: str, ca_cert_file: str) -> None:
    client = Client(address, _CHECK_TIMEOUT, ca_cert_file)
    try:
        index = client.index()
    finally:
        client.close()
    if "Kuma" not in (index.get("product"), index.get("tagline")):
        raise Misconfigured(f"what answers at {address} is no control plane of Kuma")


@planes.command()
def remove(context: typer.Context, name: Annotated[str, typer.Option(help="Of the one to forget.")]) -> None:
    """Forget a control plane."""
    session: Session = context.obj
    config = session.config()
    if all(plane.name != name for plane in config.control_planes):
        raise Misconfigured(f'there is no Control Plane with name "{name}"')
    ctl_config.save(session.path, config.without(name))
    typer.echo(f'removed Control Plane "{name}"')


@planes.command()
def switch(context: typer.Context, name: Annotated[str, typer.Option(help="Of the one to use from now on.")]) -> None:
    """Use another control plane."""
    session: Session = context.obj
    config = session.config()
    names = [c.name for c in config.contexts if c.control_plane == name]
    if not names:
        raise Misconfigured(f'there is no Control Plane with name "{name}"')
    ctl_config.save(session.path, config.model_copy(update={"current_context": names[0]}))
    typer.echo(f'switched active Control Plane to "{name}"')
