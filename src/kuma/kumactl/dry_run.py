"""What the control plane would make of files, without doing it: it is asked about all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kuma.base.errors import KumaError
from kuma.kumactl import apply_order
from kuma.kumactl.connection.client import Client, explained
from kuma.kumactl.input_files import DeclaredResource
from kuma.resources.resource import Key

_MOST = 1000
"""Resources that a control plane takes in one request of this kind."""


class WouldBeRefused(KumaError):
    """The control plane would not take something; the text has each with its reasons."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Outcome that a change would have for one resource."""

    key: Key
    created: bool
    changed: bool
    before: Mapping[str, Any]
    """Empty if there is none."""
    after: Mapping[str, Any]
    warnings: Sequence[str]


def ask(
    client: Client, declared: Mapping[Key, DeclaredResource], meshes: frozenset[str], *, strict: bool, weakening: bool
) -> Sequence[Expected]:
    """Tells what would become of each resource, in the order in which they would be sent; `meshes` exist already.

    Raises:
        WouldBeRefused: of at least one, nothing.
    """
    rounds = apply_order.rounds((one.resource for one in declared.values()), meshes)
    sent = [sending.resource for sendings in rounds for sending in sendings]
    if len(sent) > _MOST:
        raise WouldBeRefused(f"{len(sent)} resources are too many for one dry run; try them out in parts")
    items = client.dry_run(sent, strict=strict, allow_weakening=weakening)
    found = {resource.key: item for resource, item in zip(sent, items, strict=True)}  # the last word about each
    first = {resource.key: item for resource, item in zip(reversed(sent), reversed(items), strict=True)}
    refused = [(key, item["error"]) for key, item in found.items() if "error" in item]
    if refused:
        raise WouldBeRefused("\n".join(f"{declared[key].source}: {key}: {explained(error)}" for key, error in refused))
    return [_expected(key, first[key], item) for key, item in found.items()]


def _expected(key: Key, first: Mapping[str, Any], last: Mapping[str, Any]) -> Expected:
    """Returns what becomes of a resource that is sent several times: from what there was to what is at the end."""
    changed = any(item.get("changed") for item in (first, last))
    before = first.get("before") or {}
    return Expected(key, bool(first.get("created")), changed, before, last["after"], tuple(last.get("warnings", ())))


def warnings(expected: Iterable[Expected]) -> Sequence[str]:
    """Returns what is said of them, each once."""
    return tuple(dict.fromkeys(warning for one in expected for warning in one.warnings))
