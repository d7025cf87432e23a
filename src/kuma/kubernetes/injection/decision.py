"""Whether a Pod gets a sidecar."""

from __future__ import annotations

from kuma.kubernetes.injection import options
from kuma.kubernetes.injection.options import Object
from kuma.kubernetes.workloads import metadata

_BUILDERS = ("openshift.io/build.name", "openshift.io/deployer-pod-for.name")
"""Labels of Pods that build and deploy: they end, and are nobody's service."""
_MIRROR = "kubernetes.io/config.mirror"
_SYSTEM = "kubernetes.io/os"


def is_wanted(pod: Object, namespace: Object) -> bool:
    """Tells whether a Pod is to have a sidecar: its label decides, or else that of its namespace.

    Raises:
        InvalidResource: the label that decides is neither enabled nor disabled.
    """
    if any(name in metadata.labels(pod) for name in _BUILDERS):
        return False
    said = metadata.flag(metadata.labels(pod), metadata.INJECTION)
    if said is None:
        said = metadata.flag(metadata.labels(namespace), metadata.INJECTION)
    return bool(said)


def has_sidecar(pod: Object) -> bool:
    """Tells whether a Pod has its sidecar already: it was injected before, or by hand."""
    return any(container["name"] == options.SIDECAR for container in options.containers(pod))


def obstacle(pod: Object) -> str:
    """Returns why a Pod cannot have a sidecar; empty if it can."""
    spec = pod["spec"]
    if spec.get("hostNetwork"):
        return "it has the network of its node (hostNetwork), all of whose traffic would be redirected"
    if _MIRROR in metadata.of(pod):
        return "it is a static Pod, which its node has started already"
    named = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get(_SYSTEM)
    return f"it runs on {named}, and the sidecar on linux only" if named not in (None, "linux") else ""
