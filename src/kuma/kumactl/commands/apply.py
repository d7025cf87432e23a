"""`kumactl apply`: everything is checked before anything is sent."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import yaml

from kuma.base.errors import KumaError, Misconfigured
from kuma.base.values.variables import pairs
from kuma.kumactl import apply_order, input_files
from kuma.kumactl.apply_order import Sending
from kuma.kumactl.client import Client, RequestFailed
from kuma.kumactl.commands.resources import WeakeningOption
from kuma.kumactl.input_files import DeclaredResource
from kuma.kumactl.invocation import Invocation
from kuma.resources import codec, kinds
from kuma.resources.resource import Key, Resource


class NotApplied(KumaError):
    """Some or all of the resources could not be applied; the text says which were and which were not."""


def apply(
    context: typer.Context,
    file: Annotated[list[str], typer.Option("--file", "-f", help="File, directory, URL, or `-` for standard input.")],
    var: Annotated[list[str] | None, typer.Option("--var", "-v", help="name=value for {{ name }} in the text.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and print what would be sent; send nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse what has no effect here, instead of a warning.")
    ] = False,
    allow_weakening: WeakeningOption = False,
) -> None:
    """Create or replace the resources in files, in an order that works.

    What the original has and this control plane has not is stored, or left out, with a warning that says so.

    Both forms are understood: `type:`, `name:`, `mesh:`, and Kubernetes' `apiVersion:`, `kind:`, `metadata:`, `spec:`.

    Example: kumactl apply -f mesh.yaml    or: cat mesh.yaml | kumactl apply -f -
    """
    contents = input_files.read(file, pairs(input_files.VARIABLE, var or ()), strict=strict)
    declared = contents.resources
    for line in contents.left_out:
        typer.echo(f"Warning: {line}", err=True)
    if not declared:
        raise Misconfigured(f"there is no resource in {', '.join(map(input_files.described, file))}")
    if dry_run:
        documents = [codec.to_universal(one.resource) for one in declared]
        typer.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)
        return
    invocation: Invocation = context.obj
    with invocation.client() as client:
        last = _last_of_each(declared)
        meshes = _existing(client, declared)
        put = functools.partial(client.put, strict=strict, allow_weakening=allow_weakening)
        _Apply(put, last).send(apply_order.rounds((one.resource for one in last.values()), meshes))


def _last_of_each(declared: Iterable[DeclaredResource]) -> Mapping[Key, DeclaredResource]:
    """Returns what is declared of each resource; of what is declared several times, the last is meant."""
    times = Counter(one.resource.key for one in declared)
    for key in (key for key, count in times.items() if count > 1):
        typer.echo(f"Warning: {key} is declared {times[key]} times: what comes last is applied", err=True)
    return {one.resource.key: one for one in declared}


def _existing(client: Client, declared: Iterable[DeclaredResource]) -> frozenset[str]:
    """The meshes that are there, of those that resources are for.

    Raises:
        NotApplied: one neither exists nor is declared; nothing has been sent.
    """
    begun = {one.resource.name for one in declared if one.resource.key.kind == kinds.MESH.name}
    concerned = begun | {one.resource.mesh for one in declared if one.resource.mesh}
    found = frozenset(mesh for mesh in concerned if client.get(kinds.MESH, mesh, "") is not None)
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


_Put = Callable[[Resource[Any]], tuple[bool, Mapping[str, Any]]]


class _Apply:
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
        for warning in answer.warnings:
            if warning not in self._told:  # both Secrets of a CA may have the same to say of it
                self._told.add(warning)
                typer.echo(f"Warning: {warning}", err=True)
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
    """Tells whether the first answer still holds: it is stored as it is meant, and there was no complaint."""
    return first.resource == sending.resource and not first.warnings


def _listed(title: str, keys: Iterable[Key]) -> list[str]:
    """A line that names resources, if there are any."""
    names = ", ".join(map(str, keys))
    return [f"{title}: {names}"] if names else []
