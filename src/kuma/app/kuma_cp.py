"""`kuma-cp`: the control plane.

Each command loads what it needs: to say that a setting is wrong does not take what a control plane is made of.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml

import kuma
from kuma.app.configuration.settings_file import load, with_workers
from kuma.app.start import Loading
from kuma.base import command_line, garbage, logs
from kuma.base.clock import SystemClock
from kuma.base.system import service_manager

app = typer.Typer(
    name="kuma-cp",
    help="The control plane: gives every data plane proxy its identity and configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class CpLogLevel(StrEnum):
    """Levels of the control plane's log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config-file", "-c", help="YAML file with settings; environment variables win over it."),
]


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def run(
    config_file: ConfigFile = None,
    log_level: Annotated[
        CpLogLevel | None, typer.Option(help="Least level that is logged; general.logLevel without it.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that share the work; without it general.workers, which is 1."),
    ] = None,
) -> None:
    """Run the control plane until it is stopped.

    Every setting has an environment variable, such as KUMA_API_SERVER_HTTP_PORT. Without any, the control plane
    listens on the loopback only and keeps its data in ~/.kuma. Under systemd, SIGHUP has it read its settings again.

    Example: kuma-cp run --config-file kuma-cp.yaml
    """
    settings = load(config_file)
    chosen = with_workers(settings, workers or settings.general.workers)
    logs.log_as(log_level or settings.general.log_level, settings.general.log_format)
    with Loading():
        from kuma.app import process
        from kuma.app.configuration.reloading import Reloading
    process.open_many_files()
    reload = Reloading(settings, config_file, log_level)
    if chosen.general.workers > 1:
        with Loading():
            from kuma.app.workers import running
        asyncio.run(running.until_stopped(chosen, config_file, log_level, reload))
        return
    with Loading():
        from kuma.app import assembly
    work = assembly.run(chosen, SystemClock())
    with garbage.kept_short():
        asyncio.run(process.until_stopped(work, reload if service_manager.is_there() else None))


@app.command("config")
def config_(config_file: ConfigFile = None) -> None:
    """Print the settings in effect: defaults, the file, the environment.

    Example: kuma-cp config --config-file kuma-cp.yaml
    """
    settings = load(config_file)
    typer.echo(yaml.safe_dump(settings.model_dump(by_alias=True, mode="json"), sort_keys=False), nl=False)


migrate = typer.Typer(help="Brings the database to this version's schema.", no_args_is_help=True)
app.add_typer(migrate, name="migrate")


@migrate.callback()
def _migrate() -> None:
    """Commands come as sub-commands even if there are few."""


@migrate.command()
def up(
    config_file: ConfigFile = None,
    new: Annotated[
        bool, typer.Option("--new", help="Create a database under a key that is there, of one that is lost.")
    ] = False,
) -> None:
    """Create the store, or bring an older one up to date.

    `kuma-cp run` does the same to SQLite when it starts. For PostgreSQL it has to be done before, once for all
    control planes; the first time makes the key-encryption key, of which each of them needs a copy.

    Example: kuma-cp migrate up
    """
    settings = load(config_file)
    with Loading():
        from kuma.app import stores
    asyncio.run(stores.migrate(settings, SystemClock(), anew=new))
    typer.echo(f"{stores.described(settings)} is up to date")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to make.")],
    config_file: ConfigFile = None,
) -> None:
    """Copy the store to a file, while the control plane runs or not. Secrets in it stay sealed.

    The key-encryption key is not in the copy. Keep a copy of it too, in another place.

    Example: kuma-cp backup kuma-backup.db
    """
    settings = load(config_file)
    with Loading():
        from kuma.app import stores
    asyncio.run(stores.save(settings, file))
    typer.echo(f"{stores.described(settings)} is saved in {file}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `kuma-cp backup` has made.")],
    config_file: ConfigFile = None,
) -> None:
    """Put a backup in the place of the store: of SQLite or PostgreSQL, in SQLite or PostgreSQL.

    A control plane over SQLite must not be running; those over PostgreSQL may, and take over what is there then. What
    was stored until then is kept in the work directory, with `.replaced` at the end of its name.

    Example: kuma-cp restore kuma-backup.db
    """
    settings = load(config_file)
    with Loading():
        from kuma.app import stores
    asyncio.run(stores.put_back(settings, file))
    typer.echo(f"{stores.described(settings)} is as it was saved in {file}")


@app.command("prepare-key")
def prepare_key(config_file: ConfigFile = None) -> None:
    """Make the key-encryption key that is to follow, for several control planes that run.

    Copy the file that it names to the same place of each of them. When all have it, `kumactl rekey` seals all Secrets
    with it, and each control plane keeps it alone. A control plane that is alone needs `kumactl rekey` only.

    Example: kuma-cp prepare-key
    """
    with Loading():
        from kuma.store.sealing.encryption import KeyFile
    made = KeyFile(load(config_file).encryption_key).prepare()
    typer.echo(f"{made} has the next key: copy it to all control planes, then run: kumactl rekey")


@app.command()
def version() -> None:
    """Print the version.

    Example: kuma-cp version
    """
    typer.echo(f"Kuma: {kuma.__version__}")


def main() -> None:
    """Entry point."""
    command_line.run(app)
