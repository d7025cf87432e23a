"""Metrics of proxies for Prometheus: declared by a Mesh for all of them, changed by a Dataplane for its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, StrictBool, StrictInt
from pydantic_core import PydanticCustomError

from kuma.base.errors import Violation
from kuma.resources import tags as tag_rules
from kuma.resources.models.blocks import backend_names
from kuma.resources.resource import DISCRIMINATOR, Model, plain

DEFAULT_PORT, DEFAULT_PATH, DEFAULT_SERVICE = 5670, "/metrics", "dataplane-metrics"
_PATH = re.compile(r"/[A-Za-z0-9._~/-]*", re.ASCII)


class StatsSelection(Model):
    """The statistics of Envoy that are served: all, those that have been used, or those with a matching name."""

    used_only: StrictBool | None = None
    filter_regex: str | None = None


class MetricsTls(Model):
    """TLS of the connections of Prometheus: the mesh's mutual TLS, none, or TLS with files beside the proxy."""

    mode: Literal["activeMTLSBackend", "disabled", "providedTLS"] = "activeMTLSBackend"


class PrometheusConf(Model):
    """Place where metrics are served, and for whom. Permissions select it by `tags`, as they do inbounds."""

    port: StrictInt | None = None
    path: str | None = None
    tags: dict[str, str] | None = None
    skip_mtls: StrictBool | None = Field(default=None, alias="skipMTLS")
    tls: MetricsTls | None = None
    envoy: StatsSelection | None = None
    aggregate: tuple[Any, ...] = ()


def _known_type(value: str) -> str:
    if value != "prometheus":
        text = 'unknown backend type "{type}". Available backends: "prometheus"'
        raise PydanticCustomError(DISCRIMINATOR, text, {"type": plain(value)})
    return value


class MetricsBackend(Model):
    """One way to serve metrics."""

    name: str = ""
    type: Annotated[str, AfterValidator(_known_type)]
    conf: PrometheusConf = PrometheusConf()


class MeshMetrics(Model):
    """Metrics of a mesh's proxies; none without an enabled backend."""

    enabled_backend: str = ""
    backends: tuple[MetricsBackend, ...] = ()

    @property
    def enabled(self) -> MetricsBackend | None:
        """The backend in effect."""
        return next((b for b in self.backends if self.enabled_backend and b.name == self.enabled_backend), None)


class Scraping(NamedTuple):
    """Serving of one proxy's metrics; in `plaintext` only if that is asked for, or there is no mutual TLS."""

    port: int
    path: str
    tags: tuple[tuple[str, str], ...]
    plaintext: bool
    query: tuple[tuple[str, str], ...]


def scraping(mesh: MeshMetrics | None, own: MetricsBackend | None) -> Scraping | None:
    """Returns how a proxy serves its metrics: as the Mesh says, but for what its Dataplane says; None if not at all."""
    enabled = mesh.enabled if mesh else None
    if enabled is None:
        return None
    confs = (enabled.conf, *_own(own))
    said = [conf.model_dump(exclude_none=True, exclude_defaults=True) for conf in confs]
    merged = PrometheusConf.model_validate({name: value for conf in said for name, value in conf.items()})
    mode = merged.tls.mode if merged.tls else "activeMTLSBackend"
    if mode == "providedTLS":
        return None
    selection = merged.envoy or StatsSelection()
    query = [("usedonly", "")] if selection.used_only else []
    if selection.filter_regex:
        query.append(("filter", selection.filter_regex))
    named = {name: value for conf in confs for name, value in (conf.tags or {}).items()}
    tags = {tag_rules.SERVICE: DEFAULT_SERVICE, **named, tag_rules.PROTOCOL: "http"}
    return Scraping(
        merged.port or DEFAULT_PORT,
        merged.path or DEFAULT_PATH,
        tuple(sorted(tags.items())),
        bool(merged.skip_mtls) or mode == "disabled",
        tuple(query),
    )


def _own(own: MetricsBackend | None) -> Iterator[PrometheusConf]:
    if own is not None:
        yield own.conf


def validate(metrics: MeshMetrics | None) -> Iterator[Violation]:
    """Refuses backends of a Mesh that cannot be told apart, or could not be served."""
    if metrics is None:
        return
    seen: set[str] = set()
    for index, backend in enumerate(metrics.backends):
        path = f"metrics.backends[{index}]"
        yield from backend_names.validate(path, backend.name, seen)
        yield from validate_conf(f"{path}.conf", backend.conf)
    if metrics.enabled_backend and metrics.enabled_backend not in seen:
        yield Violation("metrics.enabledBackend", "has to be set to one of the backends in the mesh")


def validate_conf(path: str, conf: PrometheusConf) -> Iterator[Violation]:
    """Refuses a port, path or tags that are none."""
    if conf.port is not None and not 1 <= conf.port <= 65535:
        yield Violation(f"{path}.port", "port must be in the range [1, 65535]")
    if conf.path is not None and not _PATH.fullmatch(conf.path):
        yield Violation(f"{path}.path", f'has to be the path of a URL, such as "{DEFAULT_PATH}"')
    if conf.tags is not None:
        yield from tag_rules.validate(f"{path}.tags", conf.tags)


def not_done(path: str, conf: PrometheusConf) -> Iterator[Violation]:
    """Says what of it has no effect here, and what that means."""
    told = "is stored and given back, and has no effect here"
    if conf.aggregate:
        yield Violation(f"{path}.aggregate", f"{told}: the metrics of workloads are not added")
    if conf.tls is not None and conf.tls.mode == "providedTLS":
        yield Violation(f"{path}.tls.mode", f"{told}: no metrics are served; use activeMTLSBackend or disabled")


EVERYBODY = "without mutual TLS whoever reaches a proxy reads its metrics, which name services"


def warnings(path: str, conf: PrometheusConf) -> Iterator[str]:
    """Tells that everybody may read the metrics, if that is asked for."""
    if conf.skip_mtls or (conf.tls is not None and conf.tls.mode == "disabled"):
        yield f"{path}: {EVERYBODY}"
