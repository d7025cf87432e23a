"""`kumactl export`: everything that is stored, as files that can be applied again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml

from kuma.kumactl import apply_order
from kuma.kumactl.connection.client import Client
from kuma.kumactl.invocation import Invocation
from kuma.resources import codec, kinds
from kuma.resources.kinds import Kind
from kuma.resources.resource import Resource


class Profile(StrEnum):
    """Kinds of resources to export."""

    ALL = "all"
    NO_DATAPLANES = "no-dataplanes"
    FEDERATION = "federation"
    FEDERATION_WITH_POLICIES = "federation-with-policies"


class ExportForm(StrEnum):
    """Written form of exported resources."""

    UNIVERSAL = "universal"
    KUBERNETES = "kubernetes"


_TARGETING = (kinds.MESH_TRAFFIC_PERMISSION,)
_LOCAL = (kinds.DATAPLANE,)
_NOT_EXPORTED = ("envoy-admin-ca", "inter-cp-ca")
"""Secrets of one installation, which another one must not have."""


def export(
    context: typer.Context,
    profile: Annotated[
        Profile,
        typer.Option(
            "--profile",
            "-p",
            help="all; no-dataplanes; federation: neither Dataplanes nor policies of the targetRef kinds.",
        ),
    ] = Profile.ALL,
    form: Annotated[ExportForm, typer.Option("--format", "-f", help="universal or kubernetes.")] = (
        ExportForm.UNIVERSAL
    ),
    include_admin: Annotated[
        bool, typer.Option("--include-admin", "-a", help="Changes nothing: Secrets are exported always.")
    ] = True,
) -> None:
    """Print everything that is stored, Secrets too, as YAML that `kumactl apply` takes. Keep the output safe.

    Example: kumactl export > resources.yaml
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        resources = (codec.parse(item) for item in _items(client, _chosen(profile)))
        for resource in sorted(resources, key=_place):
            shown = codec.to_kubernetes(resource) if form is ExportForm.KUBERNETES else codec.as_declared(resource)
            typer.echo("---\n" + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


def _chosen(profile: Profile) -> Sequence[Kind]:
    left_out: tuple[Kind, ...] = ()
    if profile is not Profile.ALL:
        left_out = (*_LOCAL, *(_TARGETING if profile is Profile.FEDERATION else ()))
    return [kind for kind in kinds.ALL if not kind.read_only and kind not in left_out]


def _items(client: Client, chosen: Sequence[Kind]) -> Iterator[Mapping[str, Any]]:
    for kind in chosen:
        found = client.list_whole(f"/{kind.path}", reveal=kind.masks)
        yield from (item for item in found if item["name"] not in _NOT_EXPORTED)


def _place(resource: Resource[Any]) -> int:
    """Meshes first, for readers and for clients that apply documents as they come; the rest as `apply` sends it."""
    return -1 if resource.key.kind == kinds.MESH.name else apply_order.turn(resource)
