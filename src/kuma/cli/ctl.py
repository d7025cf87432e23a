"""`kumactl`: how people and scripts look at a control plane and change it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import kuma
from kuma.cli import ctl_apply, ctl_config_commands, ctl_export, ctl_generate, ctl_inspect, ctl_resources, output
from kuma.cli.client import RequestFailed
from kuma.cli.session import Session

app = typer.Typer(
    name="kumactl",
    help="Looks at a control plane and changes it.\n\nExample: kumactl apply -f mesh.yaml; kumactl get meshes",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    context: typer.Context,
    config_file: Annotated[
        Path | None, typer.Option(help="Configuration file; ~/.kumactl/config if not given.")
    ] = None,
    no_config: Annotated[bool, typer.Option("--no-config", help="Use no file: http://localhost:5681.")] = False,
    api_timeout: Annotated[str, typer.Option(help="How long to wait for an answer.")] = "1m",
) -> None:
    """Common options."""
    context.obj = Session(config_file, no_config=no_config, timeout=api_timeout)


@app.command()
def version(context: typer.Context) -> None:
    """Print the versions of kumactl and of the control plane."""
    typer.echo(f"Client: Kuma {kuma.__version__}")
    session: Session = context.obj
    try:
        with session.client() as client:
            index = client.index()
        typer.echo(f"Server: {index.get('product', '')} {index.get('version', '')}")
    except RequestFailed as error:
        typer.echo(f"Unable to connect to control plane: {error}", err=True)


@app.command()
def rekey(context: typer.Context) -> None:
    """Seal all Secrets of the control plane anew, under a new key-encryption key; the old one opens nothing any more.

    The control plane goes on working meanwhile. Make a new backup afterwards: old backups need the old key file.

    Example: kumactl rekey
    """
    session: Session = context.obj
    with session.client() as client:
        client.rekey()
    typer.echo("all Secrets are sealed under a new key-encryption key; back up the new key file")


app.command("apply")(ctl_apply.apply)
app.command("get")(ctl_resources.get)
app.command("export")(ctl_export.export)
app.command("delete")(ctl_resources.delete)
app.add_typer(ctl_inspect.app, name="inspect")
app.add_typer(ctl_generate.app, name="generate")
app.add_typer(ctl_config_commands.app, name="config")


def main() -> None:
    """Entry point."""
    output.run(app)
