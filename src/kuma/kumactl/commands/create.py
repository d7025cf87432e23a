"""`kumactl create`: resources from files that are no YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kuma.base import command_line
from kuma.base.errors import Misconfigured
from kuma.kumactl.commands.resources import MeshOption
from kuma.kumactl.invocation import Invocation
from kuma.resources import keys, kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource

app = typer.Typer(help="Creates resources from files that are no YAML.", no_args_is_help=True)


@app.callback()
def _create() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def secret(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Of the Secret.")],
    from_file: Annotated[Path, typer.Option(help="File whose content is the Secret, such as a certificate in PEM.")],
    mesh: MeshOption = "default",
    is_global: Annotated[bool, typer.Option("--global", help="A GlobalSecret, of no mesh.")] = False,
) -> None:
    """Create or replace a Secret with the content of a file.

    Example: kumactl create secret ca-cert --from-file ca.crt --mesh default
    """
    try:
        data = from_file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"--from-file {from_file}: {error.strerror}") from None
    key = (kinds.GLOBAL_SECRET if is_global else kinds.SECRET).key(name, mesh)
    keys.check(key)
    invocation: Invocation = context.obj
    with invocation.client() as client:
        created, said = client.put(Resource(key, SecretSpec(data=data)))
    for warning in said.get("warnings", ()):
        command_line.warn(warning)
    typer.echo(f"{key} {'created' if created else 'configured'}")
