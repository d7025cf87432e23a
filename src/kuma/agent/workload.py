"""Reads what kuma-dp is told about the workload beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kuma.agent.token_source import TokenSource
from kuma.base import texts
from kuma.base.errors import InvalidResource, Misconfigured
from kuma.base.values.variables import filled, pairs
from kuma.resources import codec, kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource

_VARIABLE = "--dataplane-var"


@dataclass(frozen=True, slots=True)
class Workload:
    """Subject of the bootstrap: a Dataplane that is brought along, or one that the control plane knows already."""

    mesh: str
    name: str
    token: TokenSource
    dataplane: Resource[DataplaneSpec] | None = None
    readiness_port: int = 0
    """Where kuma-dp tells whether the proxy is ready; 0 if nowhere."""


def workload(*, text: str, variables: Sequence[str], mesh: str, name: str, token: TokenSource) -> Workload:
    """Returns the workload that the arguments describe; `text` is a Dataplane in YAML, or empty.

    Raises:
        Misconfigured: they contradict each other or say too little.
    """
    if not text:
        if not name:
            raise Misconfigured("say which Dataplane to run for: --dataplane-file, or --name of one that exists")
        return Workload(mesh or "default", name, token)
    if mesh or name:
        raise Misconfigured("--name and --mesh cannot be given with a Dataplane, which has them already")
    values = pairs(_VARIABLE, variables)
    dataplane = _parse(filled(text, values, what="the Dataplane", option=_VARIABLE))
    return Workload(dataplane.mesh, dataplane.name, token, dataplane)


def read_dataplane(file: str) -> str:
    """Returns the Dataplane in a file, or on standard input if that is `-`.

    Raises:
        Misconfigured: it cannot be read, or there is none.
    """
    try:
        text = texts.read(file)
    except OSError as error:
        raise Misconfigured(f"--dataplane-file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"--dataplane-file {file}: is no text in UTF-8") from None
    if not text.strip():
        raise Misconfigured(f"--dataplane-file {file}: is empty")
    return text


def _parse(text: str) -> Resource[DataplaneSpec]:
    try:
        documents = list(codec.documents(text))
        if len(documents) != 1:
            raise Misconfigured(f"one Dataplane is needed; there are {len(documents)} documents")
        kind = documents[0].get("type") or documents[0].get("kind")
        if kind not in (None, kinds.DATAPLANE.name):
            raise Misconfigured(f"a Dataplane is needed, not a {kind}")
        return codec.parse(documents[0])
    except InvalidResource as error:
        raise Misconfigured(f"the Dataplane is not valid: {error}") from None
