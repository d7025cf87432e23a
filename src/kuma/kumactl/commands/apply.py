"""`kumactl apply`: everything is checked before anything is sent."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml
from typer.core import TyperCommand

from kuma.base import command_line
from kuma.base.errors import KumaError, Misconfigured
from kuma.base.values.variables import pairs
from kuma.kumactl import apply_order, input_files
from kuma.kumactl import dry_run as rehearsal
from kuma.kumactl.apply_order import Sending
from kuma.kumactl.commands.resources import WeakeningOption
from kuma.kumactl.connection.client import Client, RequestFailed
from kuma.kumactl.input_files import DeclaredResource
from kuma.kumactl.invocation import Invocation
from kuma.resources import codec, kinds, naming
from kuma.resources.resource import Key, Resource


class NotApplied(KumaError):
    """Some or all of the resources could not be applied; the text says which were and which were not."""


class DryRun(StrEnum):
    """Who judges what is not sent."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"
    BOTH = "both"


class _Apply(TyperCommand):
    """The option for a dry run may stand alone, as in the original."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        return super().parse_args(ctx, [f"--dry-run={DryRun.BOTH}" if arg == "--dry-run" else arg for arg in args])


FileOption = Annotated[list[str], typer.Option("--file", "-f", help="File, directory, URL, or `-` for standard input.")]
VarOption = Annotated[list[str] | None, typer.Option("--var", "-v", help="name=value for {{ name }} in the text.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse what has no effect here, instead of a warning.")]

app = typer.Typer(add_completion=False)


@app.command(cls=_Apply)
def apply(
    context: typer.Context,
    file: FileOption,
    var: VarOption = None,
    dry_run: Annotated[
        DryRun,
        typer.Option(
            "--dry-run",
            metavar="[client|server]",
            help="Apply nothing. client: check here, and print what would be sent. server: ask the control plane what "
            "would become of it. Alone: both.",
            show_default=False,
        ),
    ] = DryRun.NONE,
    strict: StrictOption = False,
    allow_weakening: WeakeningOption = False,
) -> None:
    """Create or replace the resources in files, in an order that works.

    What the original has and this control plane has not is stored, or left out, with a warning that says so.

    Both forms are understood: `type:`, `name:`, `mesh:`, and Kubernetes' `apiVersion:`, `kind:`, `metadata:`, `spec:`.

    Example: kumactl apply -f mesh.yaml    or: cat mesh.yaml | kumactl apply -f -
    """
    declared = read(file, var, strict=strict)
    last = _last_of_each(declared)
    if dry_run in (DryRun.CLIENT, DryRun.BOTH):
        documents = [codec.as_declared(one.resource) for one in declared]
        typer.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)
    if dry_run is DryRun.CLIENT:
        return
    invocation: Invocation = context.obj
    if dry_run is not DryRun.NONE:
        _try_out(invocation, last, dry_run, strict=strict, weakening=allow_weakening)
        return
    with invocation.client() as client:
        meshes = existing(client, declared)
        put = functools.partial(client.put, strict=strict, allow_weakening=allow_weakening)
        _Sender(put, last).send(apply_order.rounds((one.resource for one in last.values()), meshes))


def read(file: Sequence[str], var: Sequence[str] | None, *, strict: bool) -> Sequence[DeclaredResource]:
    """The resources in files; what is left out is told.

    Raises:
        Misconfigured: there is none, or a file cannot be read.
        InvalidFiles: there is something else.
    """
    contents = input_files.read(file, pairs(input_files.VARIABLE, var or ()), strict=strict)
    for line in contents.left_out:
        command_line.warn(line)
    if not contents.resources:
        raise Misconfigured(f"there is no resource in {', '.join(map(input_files.described, file))}")
    return contents.resources


def _try_out(
    invocation: Invocation, last: Mapping[Key, DeclaredResource], dry_run: DryRun, *, strict: bool, weakening: bool
) -> None:
    """Ask the control plane what would become of it, and tell.

    Raises:
        WouldBeRefused: it would not take it.
        RequestFailed: it does not answer, and nobody else was to judge.
    """
    try:
        with invocation.client(greet=dry_run is DryRun.SERVER) as client:
            meshes = existing(client, last.values())
            expected = rehearsal.ask(client, last, meshes, strict=strict, weakening=weakening)
    except RequestFailed as error:
        if dry_run is DryRun.SERVER:
            raise
        command_line.warn(f"the control plane may refuse this; it was not asked: {error}")
        return
    for warning in rehearsal.warnings(expected):
        command_line.warn(warning)
    for one in expected if dry_run is DryRun.SERVER else ():
        outcome = "created" if one.created else "configured" if one.changed else "unchanged"
        typer.echo(f"{one.key} {outcome} (server dry run)")


def _last_of_each(declared: Iterable[DeclaredResource]) -> Mapping[Key, DeclaredResource]:
    """Returns what is declared of each resource; of what is declared several times, the last is meant."""
    times = Counter(one.resource.key for one in declared)
    for key in (key for key, count in times.items() if count > 1):
        command_line.warn(f"{key} is declared {times[key]} times: what comes last is applied")
    return {one.resource.key: one for one in declared}


def existing(client: Client, declared: Iterable[DeclaredResource]) -> frozenset[str]:
    """The meshes that are there, of those that resources are for.

    Raises:
        NotApplied: one neither exists nor is declared; nothing has been sent.
    """
    begun = {one.resource.name for one in declared if one.resource.key.kind == kinds.MESH.name}
    concerned = begun | {one.resource.mesh for one in declared if one.resource.mesh}
    found = frozenset(mesh for mesh in concerned if client.get(naming.MESH, mesh, "") is not None)
    lines = [
        f'* {one.source}: {one.resource.key}: mesh "{one.resource.mesh}" does not exist; create it first'
        for one in declared
        if one.resource.mesh and one.resource.mesh not in found | begun
    ]
    if lines:
        raise NotApplied("\n".join(["nothing was applied, because meshes are missing", *lines]))
    return found


@dataclass(frozen=True, slots=True)
class _Answer:
    """Answer of the control plane about a resource."""

    resource: Resource[Any]
    created: bool
    said: Mapping[str, Any]

    @property
    def warnings(self) -> Sequence[str]:
        return tuple(self.said.get("warnings", ()))

    @property
    def absences(self) -> Sequence[str]:
        """Returns the warnings about what is not there yet."""
        return tuple(self.said.get("absences", ()))

    def after(self, first: _Answer) -> Sequence[str]:
        """Returns the warnings that hold, of a resource of which `first` was said before."""
        if first is self or self.resource.key.kind not in apply_order.PERMISSIONS:
            return self.warnings
        lasting = [warning for warning in first.warnings if warning not in first.absences]
        return (*lasting, *(warning for warning in self.warnings if warning not in lasting))


_Put = Callable[[Resource[Any]], tuple[bool, Mapping[str, Any]]]


class _Sender:
    """Sends resources and tells what has become of each."""

    def __init__(self, put: _Put, declared: Mapping[Key, DeclaredResource]) -> None:
        self._put_one = put
        self._left = dict(declared)
        self._begun: dict[Key, _Answer] = {}
        """Those that are sent again."""
        self._applied: list[Key] = []
        self._told: set[str] = set()

    def send(self, rounds: Iterable[Sequence[Sending]]) -> None:
        """Send round after round.

        Raises:
            NotApplied: the control plane refuses one.
        """
        for sending in itertools.chain.from_iterable(rounds):
            first = self._begun.get(sending.resource.key)
            answer = first if first and _needs_no_other_look(first, sending) else self._put(sending.resource)
            if sending.again:
                self._begun[sending.resource.key] = answer
            else:
                self._finish(answer, first or answer)

    def _finish(self, answer: _Answer, first: _Answer) -> None:
        key = answer.resource.key
        for warning in answer.after(first):
            if warning not in self._told:  # both Secrets of a CA may have the same to say of it
                self._told.add(warning)
                command_line.warn(warning)
        typer.echo(f"{key} {'created' if first.created else 'configured'}")
        if first.said.get("stagedChange") or answer.said.get("stagedChange"):
            mesh = key.mesh or key.name
            typer.echo(f"A staged change has begun; follow it with: kumactl inspect meshes --watch {mesh}")
        del self._left[key]
        self._begun.pop(key, None)
        self._applied.append(key)

    def _put(self, resource: Resource[Any]) -> _Answer:
        try:
            return _Answer(resource, *self._put_one(resource))
        except RequestFailed as error:
            left = [key for key in self._left if key not in self._begun]
            lines = [f"{self._left[resource.key].source}: {error}", *_listed("Applied before", self._applied)]
            lines += _listed("Begun, and waiting for the rest", self._begun)
            lines += _listed("Not applied", left) if len(self._left) > 1 else []
            raise NotApplied("\n".join(lines)) from None


def _needs_no_other_look(first: _Answer, sending: Sending) -> bool:
    """Tells whether the first answer still holds: it is stored as it is meant, and there was no complaint.

    What is said of permissions depends on the Dataplanes that have come since.
    """
    is_permission = sending.resource.key.kind in apply_order.PERMISSIONS
    return first.resource == sending.resource and not first.warnings and not is_permission


def _listed(title: str, keys: Iterable[Key]) -> list[str]:
    """A line that names resources, if there are any."""
    names = ", ".join(map(str, keys))
    return [f"{title}: {names}"] if names else []
