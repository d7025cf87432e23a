"""`kumactl apply`: everything is checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer
import yaml

from kuma.base.errors import KumaError, Misconfigured
from kuma.base.values.variables import pairs
from kuma.kumactl import input_files
from kuma.kumactl.client import Client, RequestFailed
from kuma.kumactl.input_files import DeclaredResource
from kuma.kumactl.invocation import Invocation
from kuma.resources import codec, kinds


class NotApplied(KumaError):
    """Raised when resources could not be applied; the text says which were and which were not."""


def apply(
    context: typer.Context,
    file: Annotated[list[str], typer.Option("--file", "-f", help="File, directory, URL, or `-` for standard input.")],
    var: Annotated[list[str] | None, typer.Option("--var", "-v", help="name=value for {{ name }} in the text.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and print what would be sent; send nothing.")
    ] = False,
) -> None:
    """Create or replace the resources in files.

    Both forms are understood: `type:`, `name:`, `mesh:`, and Kubernetes' `apiVersion:`, `kind:`, `metadata:`, `spec:`.

    Example: kumactl apply -f mesh.yaml    or: cat mesh.yaml | kumactl apply -f -
    """
    declared = input_files.read(file, pairs(input_files.VARIABLE, var or ()))
    if not declared:
        raise Misconfigured(f"there is no resource in {', '.join(map(input_files.described, file))}")
    if dry_run:
        documents = [codec.to_universal(one.resource) for one in declared]
        typer.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)
        return
    invocation: Invocation = context.obj
    with invocation.client() as client:
        _check_meshes(client, declared)
        _send(client, declared)


def _check_meshes(client: Client, declared: Sequence[DeclaredResource]) -> None:
    """See that every mesh is there when its resources are sent.

    Raises:
        NotApplied: one is not; nothing has been sent.
    """
    begun: set[str] = set()
    waiting: dict[str, list[DeclaredResource]] = {}
    for one in declared:
        if one.resource.key.kind == kinds.MESH.name:
            begun.add(one.resource.name)
        elif one.resource.mesh and one.resource.mesh not in begun:
            waiting.setdefault(one.resource.mesh, []).append(one)
    lines = []
    for mesh, homeless in waiting.items():
        if client.get(kinds.MESH, mesh, "") is None:
            remedy = "comes later in the files; put it first" if mesh in begun else "does not exist; create it first"
            lines += [f'* {one.source}: {one.resource.key}: mesh "{mesh}" {remedy}' for one in homeless]
    if lines:
        raise NotApplied("\n".join(["nothing was applied, because meshes are missing", *lines]))


def _send(client: Client, declared: Sequence[DeclaredResource]) -> None:
    for index, one in enumerate(declared):
        try:
            created, said = client.put(one.resource)
        except RequestFailed as error:
            lines = [f"{one.source}: {error}"]
            lines += _listed("Applied before", declared[:index])
            lines += _listed("Not applied", declared[index:]) if len(declared) > 1 else []
            raise NotApplied("\n".join(lines)) from None
        for warning in said.get("warnings", ()):
            typer.echo(f"Warning: {warning}", err=True)
        typer.echo(f"{one.resource.key} {'created' if created else 'configured'}")
        if said.get("stagedChange"):
            mesh = one.resource.mesh or one.resource.name
            typer.echo(f"A staged change has begun; follow it with: kumactl inspect meshes --watch {mesh}")


def _listed(title: str, declared: Iterable[DeclaredResource]) -> list[str]:
    """A line that names resources, if there are any."""
    names = ", ".join(str(one.resource.key) for one in declared)
    return [f"{title}: {names}"] if names else []
