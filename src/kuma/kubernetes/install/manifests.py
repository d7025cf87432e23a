"""Everything that is installed, in the order in which it has to be applied."""

from __future__ import annotations

from typing import Any

from kuma.kubernetes.install import access, admission, workload
from kuma.kubernetes.install.fitness import marked
from kuma.kubernetes.install.options import Options
from kuma.kubernetes.objects.definitions import definitions
from kuma.kubernetes.objects.forms import Forms


def control_plane(chosen: Options) -> list[dict[str, Any]]:
    """A control plane with all that it needs."""
    return [
        workload.namespace(chosen),
        *crds(chosen),
        *access.manifests(chosen),
        *workload.manifests(chosen),
        *admission.manifests(chosen),
    ]


def crds(chosen: Options) -> list[dict[str, Any]]:
    """The definitions of the kinds."""
    return [marked(definition) for definition in definitions(Forms(chosen.namespace))]


def removal(chosen: Options, *, with_data: bool) -> list[dict[str, Any]]:
    """Returns what is to be deleted: the webhooks first, which would refuse what comes after them once nobody answers.

    Without `with_data` what has been stored stays, and so do the definitions and the namespace that it is in.
    """
    running = [*admission.manifests(chosen), *reversed(workload.manifests(chosen)), *access.manifests(chosen)]
    return [*running, *crds(chosen), workload.namespace(chosen)] if with_data else running
