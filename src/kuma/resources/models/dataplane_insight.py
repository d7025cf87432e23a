"""DataplaneInsight: what the control plane knows of a proxy. Written by the control plane only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, model_validator

from kuma.resources.models.last_contact import LastContact
from kuma.resources.resource import Model

Count = Annotated[int, PlainSerializer(str, when_used="json")]
"""An unsigned 64-bit counter: a string in JSON, by protobuf's JSON mapping."""


class Responses(Model):
    """Discovery responses, and how proxies answered."""

    responses_sent: Count = 0
    responses_acknowledged: Count = 0
    responses_rejected: Count = 0


class TypeResponses(Responses):
    """Discovery responses of one type; `last_rejection` is Envoy's reason while something of it stands rejected."""

    last_rejection: str = ""


class Status(Model):
    """Discovery responses of one subscription, in total and by type."""

    last_update_time: datetime | None = None
    total: Responses = Responses()
    cds: TypeResponses = TypeResponses()
    eds: TypeResponses = TypeResponses()
    lds: TypeResponses = TypeResponses()
    rds: TypeResponses = TypeResponses()
    sds: TypeResponses = TypeResponses()

    @model_validator(mode="before")
    @classmethod
    def _rejection_of_one_type(cls, found: Any) -> Any:
        """Insights stored earlier may have one rejection for all types, which begins with the type's name."""
        if not isinstance(found, dict) or "lastRejection" not in found:
            return found
        bucket, _, reason = str(found["lastRejection"]).partition(": ")
        rest = {name: value for name, value in found.items() if name != "lastRejection"}
        return {**rest, bucket: {**rest.get(bucket, {}), "lastRejection": reason}} if reason else rest


class KumaDpVersion(Model):
    """Version of the `kuma-dp` that started the proxy."""

    version: str = ""
    git_tag: str = ""
    git_commit: str = ""
    build_date: str = ""


class EnvoyVersion(Model):
    """Version of the proxy's Envoy."""

    version: str = ""
    build: str = ""


class Version(Model):
    """Versions of what runs beside the workload."""

    kuma_dp: KumaDpVersion = KumaDpVersion()
    envoy: EnvoyVersion = EnvoyVersion()
    dependencies: dict[str, str] = {}


class Subscription(Model):
    """One stream of a proxy, from connect to disconnect."""

    id: str
    control_plane_instance_id: str = ""
    connect_time: datetime | None = None
    disconnect_time: datetime | None = None
    status: Status = Status()
    version: Version = Version()
    generation: int = 0


class MtlsInsight(Model):
    """The proxy's certificate: until when, since when, how often renewed, and by which authority.

    `serial` is in hexadecimal; `reason` says why this one was issued. Older control planes did not tell these.
    """

    certificate_expiration_time: datetime | None = None
    last_certificate_regeneration: datetime | None = None
    certificate_regenerations: int = 0
    issued_backend: str = ""
    supported_backends: tuple[str, ...] = ()
    serial: str = ""
    spiffe_ids: tuple[str, ...] = ()
    not_before: datetime | None = None
    reason: str = ""


class EnvoyFeatures(Model):
    """What a proxy's Envoy can do, as it matters to what it is sent; see `kuma.xds.envoy.node.capabilities`."""

    waits_for_handshake: bool = False
    has_internal_listeners: bool = False
    group: str = ""
    reports: bool = False
    unwritable: tuple[str, ...] = ()


class AdministrationInsight(Model):
    """Port of the administration of a proxy's Envoy, as the proxy says, and the address that its stream came from.

    Together with `features` it is what any control plane needs to know of a proxy that is connected to another one.
    """

    port: int = 0
    host: str = ""
    features: EnvoyFeatures = EnvoyFeatures()


class TokenInsight(Model):
    """Times of the token that the proxy has shown last: when it ends, and since when people are told of it."""

    expiration_time: datetime
    warning_time: datetime


class DataplaneInsightSpec(Model):
    """The proxy's subscriptions, oldest first, and its certificate.

    `withheld_inbounds` names the inbounds that are not served, `unresolved_names` the host names that cannot be
    resolved now, each with the reason.
    `past_regenerations` keeps count of the certificates while the proxy has none, so `mTLS` is absent.
    """

    subscriptions: tuple[Subscription, ...] = ()
    mtls: MtlsInsight | None = Field(default=None, alias="mTLS")
    past_regenerations: int = 0
    administration: AdministrationInsight | None = None
    withheld_inbounds: tuple[str, ...] = ()
    unresolved_names: tuple[str, ...] = ()
    token: TokenInsight | None = None
    last_contact: LastContact | None = None
    """Of a proxy that may go on although its stream has ended."""

    @property
    def online(self) -> bool:
        """Tells whether a stream of the proxy is open."""
        return any(s.connect_time and not s.disconnect_time for s in self.subscriptions)

    @property
    def server(self) -> str:
        """The control plane that the proxy was connected to last; empty if there was none."""
        return self.subscriptions[-1].control_plane_instance_id if self.subscriptions else ""
