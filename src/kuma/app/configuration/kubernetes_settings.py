"""Settings of a control plane on Kubernetes."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from kuma.app.configuration.section import Port, Section
from kuma.resources.duration import Duration

_LEAST_DEADLINE = 5.0
"""Seconds: the lease is renewed every two, and one that does not come through is no reason to stop."""


class AdmissionServerSection(Section):
    """The webhooks that the API server of Kubernetes calls."""

    address: str = Field("0.0.0.0", description="Address to listen on.")  # noqa: S104 - the API server is elsewhere
    port: Port = Field(5443, description="Port to listen on.")


class SidecarContainerSection(Section):
    """The container that runs beside a workload."""

    image: str = Field("", description="Image with kuma-dp; that of this version if empty.")
    drain_time: Duration = Field(Duration("30s"), description="How long connections may last on when a Pod ends.")


class InitContainerSection(Section):
    """The container that has the traffic of a Pod redirected to its sidecar."""

    image: str = Field("", description="Image with kumactl and iptables; that of this version if empty.")


class InjectorSection(Section):
    """Sidecars of Pods."""

    sidecar_container: SidecarContainerSection = SidecarContainerSection()
    init_container: InitContainerSection = InitContainerSection()
    workload_stop_seconds: int = Field(
        5,
        ge=0,
        le=999,
        description="How long workloads with a sidecar go on before they are told to end, so that callers have been "
        "sent elsewhere by then; containers with a preStop hook of their own do what that says.",
    )


class LeaderElectionSection(Section):
    """The Lease by which one of several control planes leads."""

    lease_duration: Duration = Field(
        Duration("15s"),
        description="How long after its last sign of life another control plane takes a leader's place.",
    )
    renew_deadline: Duration = Field(
        Duration("10s"),
        description="How long a leader changes things after its last sign of life; what is under way ends later.",
    )

    @model_validator(mode="after")
    def _ends_in_time(self) -> Self:
        if not _LEAST_DEADLINE <= self.renew_deadline.seconds < self.lease_duration.seconds:
            raise ValueError(
                f"renewDeadline has to be at least {_LEAST_DEADLINE:.0f}s, and shorter than leaseDuration: a leader "
                "has to end before another one begins"
            )
        return self


class KubernetesSection(Section):
    """Settings of a control plane on Kubernetes."""

    admission_server: AdmissionServerSection = AdmissionServerSection()
    injector: InjectorSection = InjectorSection()
    leader_election: LeaderElectionSection = LeaderElectionSection()
    control_plane_service_name: str = Field(
        "kuma-control-plane", description="Service by which proxies reach the control plane."
    )
    pod_name: str = Field("", description="Pod that this control plane is, which is labelled while it leads.")
