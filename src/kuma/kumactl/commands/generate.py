"""`kumactl generate`: credentials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from kuma.base import command_line
from kuma.base.values.variables import pair
from kuma.kumactl.commands.resources import MeshOption
from kuma.kumactl.invocation import Invocation
from kuma.kumactl.later import Later
from kuma.resources import keys, naming

KeyOption = Annotated[Path | None, typer.Option("--signing-key-path", help="Sign here, with this key, PEM.")]
KidOption = Annotated[str, typer.Option("--kid", help="With --signing-key-path: the number of that key.")]


class _Commands(Later):
    """Those that are about keys take long to load."""

    later: ClassVar[Mapping[str, str]] = {
        "signing-key": "kuma.kumactl.commands.signing_keys:signing_key",
        "public-key": "kuma.kumactl.commands.signing_keys:public_key",
        "tls-certificate": "kuma.kumactl.commands.certificate:tls_certificate",
    }


app = typer.Typer(cls=_Commands, help="Generates credentials.", no_args_is_help=True)


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
    signing_key_path: KeyOption = None,
    kid: KidOption = "",
) -> None:
    """Print a token by which a proxy proves which Dataplane it runs for.

    Example: kumactl generate dataplane-token --name web-01 --mesh default --valid-for 24h > token
    """
    tags: dict[str, list[str]] = {}
    for text in tag or ():
        key, values = pair("--tag", text)
        tags.setdefault(key, []).extend(values.split(","))
    keys.check(naming.DATAPLANE.key(name or "any", mesh))
    claims = {"Name": name, "Mesh": mesh, "Tags": tags, "Type": proxy_type}
    signed = _signed_here(claims, valid_for, signing_key_path, kid)
    if signed is not None:
        typer.echo(signed, nl=False)
        return
    request = {"name": name, "mesh": mesh, "tags": tags, "type": proxy_type, "validFor": valid_for}
    invocation: Invocation = context.obj
    with invocation.client() as client:
        typer.echo(client.token("dataplane", request), nl=False)
    if not (name or tags):
        command_line.warn(f'without --name and --tag the token holds for every Dataplane of mesh "{mesh}"')


@app.command("user-token")
def user_token(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Of the user.")],
    valid_for: Annotated[str, typer.Option(help="How long it is valid, such as 24h.")],
    group: Annotated[list[str] | None, typer.Option("--group", help="Group that the user is in.")] = None,
    signing_key_path: KeyOption = None,
    kid: KidOption = "",
) -> None:
    """Print a token by which a user proves to the control plane who they are.

    Example: kumactl generate user-token --name john --group team-a --valid-for 24h
    """
    signed = _signed_here({"Name": name, "Groups": group or []}, valid_for, signing_key_path, kid)
    if signed is not None:
        typer.echo(signed, nl=False)
        return
    invocation: Invocation = context.obj
    with invocation.client() as client:
        request = {"name": name, "groups": group or [], "validFor": valid_for}
        typer.echo(client.token("user", request), nl=False)


@app.command("zone-token")
def zone_token(
    context: typer.Context,
    zone: Annotated[str, typer.Option(help="Of the zone.")],
    valid_for: Annotated[str, typer.Option(help="How long it is valid, such as 24h.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", help="ingress, egress; both if not given.")] = None,
) -> None:
    """Ask for a token for the proxies of a zone. Our control plane has no zones, and says so.

    Example: kumactl generate zone-token --zone east --valid-for 24h
    """
    scopes = [part for text in scope or ("ingress,egress",) for part in text.split(",")]
    invocation: Invocation = context.obj
    with invocation.client() as client:
        typer.echo(client.token("zone", {"zone": zone, "scope": scopes, "validFor": valid_for}), nl=False)


def _signed_here(claims: Mapping[str, Any], valid_for: str, key_path: Path | None, kid: str) -> str | None:
    """See `offline_signing.sign`."""
    if key_path is None and not kid:
        return None
    from kuma.kumactl import offline_signing  # takes long to load

    return offline_signing.sign(claims, valid_for, key_path, kid)
