"""`kumactl config`: which control plane is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml

from kuma.base import urls
from kuma.base.errors import Misconfigured
from kuma.cli import ctl_config, tables
from kuma.cli.client import Client
from kuma.cli.ctl_config import ApiServer, Header
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
    auth_type: Annotated[str, typer.Option(help="How to say who you are: tokens.")] = "",
    auth_conf: Annotated[
        list[str] | None, typer.Option("--auth-conf", help="With --auth-type=tokens: token=YOUR_TOKEN.")
    ] = None,
    headers: Annotated[
        list[str] | None, typer.Option("--headers", help="name=value of a header that every request carries.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace one of the same name.")] = False,
    skip_check: Annotated[bool, typer.Option("--skip-check", help="Do not ask it what it is.")] = False,
) -> None:
    """Add a control plane and switch to it.

    Example: kumactl config control-planes add --name prod --address http://localhost:5681
    """
    session: Session = context.obj
    config = session.config(may_begin=True)
    if not overwrite and any(plane.name == name for plane in config.control_planes):
        raise Misconfigured(
            f'Control Plane with name "{name}" already exists. Use --overwrite to replace an existing one.'
        )
    try:
        urls.split(address, "http", "https")
    except ValueError as error:
        raise Misconfigured(f"--address {address}: {error}") from None
    server = ApiServer(
        url=address,
        ca_cert_file=str(Path(ca_cert_file).absolute()) if ca_cert_file else "",
        auth_type=auth_type,
        auth_conf=_pairs("--auth-conf", auth_conf or ()),
        headers=tuple(Header(key=k, value=v) for k, v in _pairs("--headers", headers or ()).items()),
    )
    _check_authentication(server)
    if not skip_check:
        _check(server)
    ctl_config.save(session.path, config.adding(name, server))
    typer.echo(f'added Control Plane "{name}"\nswitched active Control Plane to "{name}"')


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise Misconfigured(f"{option} is not valid: has to be name=value")
    return {name: value for name, _, value in pairs}


def _check_authentication(server: ApiServer) -> None:
    if server.auth_type not in ("", ctl_config.TOKENS):
        raise Misconfigured(f'--auth-type {server.auth_type}: only "tokens" is known')
    if server.auth_type and not server.auth_conf.get("token"):
        raise Misconfigured("--auth-conf is not valid: provide token=YOUR_TOKEN")
    if server.auth_conf and not server.auth_type:
        raise Misconfigured("--auth-conf needs --auth-type=tokens")


def _check(server: ApiServer) -> None:
    """Ask who it is, and, with a token, whether it holds."""
    remedy = "Correct --address, or add it without asking it: --skip-check"
    client = Client(server.url, _CHECK_TIMEOUT, server.ca_cert_file, server.request_headers, remedy)
    try:
        index = client.index()
        if server.auth_type:
            client.who_am_i()
    finally:
        client.close()
    if "Kuma" not in (index.get("product"), index.get("tagline")):
        raise Misconfigured(f"what answers at {server.url} is no control plane of Kuma")


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
