"""`kumactl export`: everything that is stored, as files that can be applied again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml

from kuma.kumactl.client import Client
from kuma.kumactl.invocation import Invocation
from kuma.resources import codec, kinds
from kuma.resources.kinds import Kind


class Profile(StrEnum):
    """Kinds of resources to export."""

    FEDERATION = "federation"
    FEDERATION_WITH_POLICIES = "federation-with-policies"
    ALL = "all"


class ExportForm(StrEnum):
    """Written form of exported resources."""

    UNIVERSAL = "universal"
    KUBERNETES = "kubernetes"


_TARGETING = (kinds.MESH_TRAFFIC_PERMISSION,)
_LOCAL = (kinds.DATAPLANE,)
_NOT_EXPORTED = ("envoy-admin-ca", "inter-cp-ca")
"""Secrets of one installation, which another one must not have."""
_SIGNING_KEY = "user-token-signing-key"


def export(
    context: typer.Context,
    profile: Annotated[
        Profile, typer.Option(help="federation: what every zone needs; all: Dataplanes and new policies, too.")
    ] = Profile.FEDERATION,
    form: Annotated[ExportForm, typer.Option("--format", help="universal or kubernetes.")] = ExportForm.UNIVERSAL,
) -> None:
    """Print everything that is stored, Secrets too, as YAML that `kumactl apply` takes. Keep the output safe.

    Example: kumactl export --profile all > resources.yaml
    """
    invocation: Invocation = context.obj
    with invocation.client() as client:
        for item in _ordered(_items(client, _chosen(profile))):
            resource = codec.parse(item)
            shown = codec.to_kubernetes(resource) if form is ExportForm.KUBERNETES else codec.to_universal(resource)
            typer.echo("---\n" + yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), nl=False)


def _chosen(profile: Profile) -> Sequence[Kind]:
    left_out: tuple[Kind, ...] = ()
    if profile is not Profile.ALL:
        left_out = (*_LOCAL, *(() if profile is Profile.FEDERATION_WITH_POLICIES else _TARGETING))
    return [kind for kind in kinds.ALL if not kind.read_only and kind not in left_out]


def _items(client: Client, chosen: Sequence[Kind]) -> Iterator[Mapping[str, Any]]:
    for kind in chosen:
        found = client.list_whole(f"/{kind.path}", reveal=kind.masks)
        yield from (item for item in found if item["name"] not in _NOT_EXPORTED)


def _ordered(items: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Orders resources so that each can be applied when its turn comes.

    A Secret needs its Mesh and a `provided` backend its Secrets, so Meshes come twice: bare, and whole after the
    Secrets. Signing keys of user tokens come last: they end the tokens that the rest is applied with.
    """
    whole = list(items)
    bare = [{k: v for k, v in item.items() if k != "mtls"} for item in whole if "mtls" in item]
    return [*bare, *sorted(whole, key=_turn)]


def _turn(item: Mapping[str, Any]) -> int:
    if item["name"].startswith(_SIGNING_KEY):
        return 4
    if item["type"] in (kinds.SECRET.name, kinds.GLOBAL_SECRET.name):
        return 1
    return {kinds.MESH.name: 2 if "mtls" in item else 0}.get(item["type"], 3)
