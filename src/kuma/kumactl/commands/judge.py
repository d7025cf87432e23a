"""`kumactl check`, `explain` and `suggest`: is a mesh well, why is a call refused, which permissions would it take?"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
import yaml

from kuma.base import command_line
from kuma.kumactl.commands.resources import Form, FormOption, MeshOption, layout, show_list
from kuma.kumactl.connection import paths
from kuma.kumactl.display import foresight
from kuma.kumactl.invocation import Invocation

FAILS = 2
"""The exit status of `check` if something is wrong."""
explain_app = typer.Typer(help="Explains why something is as it is.", no_args_is_help=True)
suggest_app = typer.Typer(help="Suggests resources, for you to review.", no_args_is_help=True)


@explain_app.callback()
@suggest_app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


def check(
    context: typer.Context,
    mesh: Annotated[str, typer.Option("--mesh", "-m", help="Only this mesh, and no settings.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="Fail for warnings, too.")] = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Check the health of all meshes: authorities, certificates, tokens, changes, proxies, plaintext, permissions.

    Each finding says what to do. The exit status is 0 if nothing fails, 2 if something does, 1 for an error.

    Example: kumactl check    or: kumactl check --mesh default --strict
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        items = client.list_whole("/health-findings", filters={"mesh": mesh} if mesh else {})
    show_list(items, output, lambda: foresight.findings(items, layout(output)))
    failing = ("failure", "warning") if strict else ("failure",)
    if any(item["status"] in failing for item in items):
        raise typer.Exit(FAILS)


@explain_app.command("call")
def call(
    context: typer.Context,
    caller: Annotated[str, typer.Argument(help="A service, a Dataplane, a SPIFFE ID, or an address.")],
    called: Annotated[
        str, typer.Argument(help="A service, a Dataplane, a SPIFFE ID, or a listener: inbound:10.0.0.1:80.")
    ],
    mesh: MeshOption = "default",
    output: FormOption = Form.TABLE,
) -> None:
    """Explain what becomes of a call: admitted or refused, by which rule, with which certificate, over which listener.

    Example: kumactl explain call web backend    or: kumactl explain call spiffe://default/web inbound:10.0.0.1:8080
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        path, filters = paths.within(mesh, "call-explanations"), {"caller": caller, "called": called}
        items = client.list_whole(path, filters=filters)
    show_list(items, output, lambda: foresight.explanations(items))


class PermissionKind(StrEnum):
    """Kinds of permissions."""

    MESH = "meshtrafficpermission"
    LEGACY = "traffic-permission"


@suggest_app.command("permissions")
def permissions(
    context: typer.Context,
    mesh: MeshOption = "default",
    kind: Annotated[
        PermissionKind, typer.Option("--kind", help="Kind of permissions to suggest.")
    ] = PermissionKind.MESH,
) -> None:
    """Print the least permissions that admit the callers that were seen, as YAML to review and apply.

    Callers in plaintext have no identity that a permission could name: they are told on standard error. If nobody else
    was seen, that is said there, too.

    Example: kumactl suggest permissions --mesh default > permissions.yaml
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        found = client.suggestions(mesh, kind)
    for caller in found["leftOut"]:
        who = f"{caller['caller']} calls {caller['service']} without an identity of the mesh ({caller['how']})"
        command_line.warn(f"{who}: no permission admits or refuses it")
    if not found["items"]:
        command_line.warn("nobody with an identity of the mesh was seen to call yet: there is nothing to suggest")
    typer.echo(yaml.safe_dump_all(found["items"], sort_keys=False, explicit_start=True), nl=False)
