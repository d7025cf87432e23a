"""`kumactl config`: which control plane is meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml

from kuma.base.errors import Misconfigured
from kuma.base.values import urls
from kuma.kumactl.connection import config_file, transport, version_check
from kuma.kumactl.connection.client import Client
from kuma.kumactl.connection.config_file import ApiServer, Header
from kuma.kumactl.display.layout import table
from kuma.kumactl.invocation import Invocation

app = typer.Typer(help="Chooses the control plane.", no_args_is_help=True)
planes = typer.Typer(help="Adds, lists, removes and switches control planes.", no_args_is_help=True)
app.add_typer(planes, name="control-planes")
_CHECK_TIMEOUT = 10.0
_REMEDY = "Correct --address, or add it without asking it: --skip-check"


@app.command()
def view(context: typer.Context) -> None:
    """Print the configuration, without its tokens and headers.

    Example: kumactl config view
    """
    invocation: Invocation = context.obj
    content = invocation.config().to_file()
    for plane in content.get("controlPlanes", ()):
        server = plane["coordinates"]["apiServer"]
        for secret in ("authConf", "headers"):
            if secret in server:
                server[secret] = "*****"
    typer.echo(yaml.safe_dump(content), nl=False)


@planes.command("list")
def list_(context: typer.Context) -> None:
    """List the control planes that are known.

    Example: kumactl config control-planes list
    """
    invocation: Invocation = context.obj
    config = invocation.config()
    active = next((c.control_plane for c in config.contexts if c.name == config.current_context), "")
    rows = [("*" if p.name == active else "", p.name, p.api_server.url) for p in config.control_planes]
    typer.echo(table(("ACTIVE", "NAME", "ADDRESS"), rows))


@planes.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="How it is to be called.")],
    address: Annotated[str, typer.Option(help="URL of its API, such as http://localhost:5681.")],
    ca_cert_file: Annotated[str, typer.Option(help="CA by which an https address is verified, PEM.")] = "",
    client_cert_file: Annotated[str, typer.Option(help="Certificate by which it knows you, PEM.")] = "",
    client_key_file: Annotated[str, typer.Option(help="Key of that certificate, PEM.")] = "",
    skip_verify: Annotated[
        bool, typer.Option("--skip-verify", help="Believe whoever answers, if there is no --ca-cert-file. Unsafe.")
    ] = False,
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
    invocation: Invocation = context.obj
    config = invocation.config(may_begin=True)
    if not name:
        raise Misconfigured("--name: cannot be empty")
    if not overwrite and any(plane.name == name for plane in config.control_planes):
        raise Misconfigured(
            f'Control Plane with name "{name}" already exists. Use --overwrite to replace an existing one.'
        )
    try:
        urls.split(address, "http", "https")
    except ValueError as error:
        slip = f". Did you mean http://{address}?" if "://" not in address else ""
        raise Misconfigured(f"--address {address}: {error}{slip}") from None
    server = ApiServer(
        url=address,
        ca_cert_file=_absolute(ca_cert_file),
        client_cert_file=_absolute(client_cert_file),
        client_key_file=_absolute(client_key_file),
        skip_verify=skip_verify,
        auth_type=auth_type,
        auth_conf=_pairs("--auth-conf", auth_conf or ()),
        headers=tuple(Header(key=k, value=v) for k, v in _pairs("--headers", headers or ()).items()),
    )
    _check_authentication(server)
    transport.verification(server)  # complain of files before anything is kept
    transport.warn(server)
    if not skip_check:
        _check(server)
    config_file.save(invocation.path, config.adding(name, server))
    typer.echo(f'added Control Plane "{name}"\nswitched active Control Plane to "{name}"')


def _absolute(file: str) -> str:
    return str(Path(file).absolute()) if file else ""


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise Misconfigured(f"{option} is not valid: has to be name=value")
    return {name: value for name, _, value in pairs}


def _check_authentication(server: ApiServer) -> None:
    if server.auth_type not in ("", config_file.TOKENS):
        raise Misconfigured(f'--auth-type {server.auth_type}: only "tokens" is known')
    if server.auth_type and not server.auth_conf.get("token"):
        raise Misconfigured("--auth-conf is not valid: provide token=YOUR_TOKEN")
    if server.auth_conf and not server.auth_type:
        raise Misconfigured("--auth-conf needs --auth-type=tokens")


def _check(server: ApiServer) -> None:
    """Ask who it is, before it is shown a token, and then whether the token holds."""
    stranger = dataclasses.replace(server, auth_type="")
    with _client(stranger) as client:
        index = client.index()
    if version_check.product_of(index) != version_check.PRODUCT:
        raise Misconfigured(f"what answers at {server.url} is no control plane of Kuma. {_REMEDY}")
    if server.auth_type:
        with _client(server) as client:
            client.who_am_i()


@contextmanager
def _client(server: ApiServer) -> Iterator[Client]:
    client = transport.client(server, _CHECK_TIMEOUT, remedy=_REMEDY)
    try:
        yield client
    finally:
        client.close()


@planes.command()
def remove(context: typer.Context, name: Annotated[str, typer.Option(help="Of the one to forget.")]) -> None:
    """Forget a control plane.

    Example: kumactl config control-planes remove --name prod
    """
    invocation: Invocation = context.obj
    config = invocation.config()
    if all(plane.name != name for plane in config.control_planes):
        raise Misconfigured(f'there is no Control Plane with name "{name}"')
    config_file.save(invocation.path, config.without(name))
    typer.echo(f'removed Control Plane "{name}"')


@planes.command()
def switch(context: typer.Context, name: Annotated[str, typer.Option(help="Of the one to use from now on.")]) -> None:
    """Use another control plane.

    Example: kumactl config control-planes switch --name prod
    """
    invocation: Invocation = context.obj
    config = invocation.config()
    switched = config.switched(name)
    if switched is None:
        raise Misconfigured(f'there is no Control Plane with name "{name}"')
    config_file.save(invocation.path, switched)
    typer.echo(f'switched active Control Plane to "{name}"')
