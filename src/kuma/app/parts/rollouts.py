"""Builds the controllers that change mutual TLS and permissions of live traffic step by step."""

from __future__ import annotations

from dataclasses import dataclass

from kuma.app.parts.foundation import Foundation
from kuma.app.parts.state import State
from kuma.mtls.controller import RolloutController
from kuma.mtls.progress_reports import ProgressReports
from kuma.mtls.steps.progress import Patience
from kuma.xds.proxies.drain import Drain
from kuma.xds.proxies.elsewhere.noted_permissions import FormerPermissions
from kuma.xds.proxies.elsewhere.stored_leaves import StoredLeaves
from kuma.xds.proxies.renames import Renames


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Controllers that change mutual TLS and permissions of live traffic step by step."""

    controller: RolloutController
    drain: Drain
    leaves: StoredLeaves
    former: FormerPermissions
    reports: ProgressReports


def build_rollouts(base: Foundation, known: State) -> Rollouts:
    """Builds the controllers that wait for proxies."""
    limits = base.settings.xds_server
    controller = RolloutController(
        base.store,
        known.views,
        known.meshes,
        known.proxies,
        base.clock,
        metrics=known.metrics,
        patience=Patience(limits.transition_patience.delta, limits.transition_absence.delta),
        watch=base.watch,
        drain=limits.connection_drain.delta,
        coordination=base.coordination,
        drivers=base.drivers,
    )
    reports = ProgressReports(
        base.store,
        known.meshes,
        known.proxies,
        base.clock,
        base.instance,
        controller.report,
        base.coordination,
    )
    patience, drain_time = limits.transition_patience.seconds, limits.connection_drain.seconds
    leaves = StoredLeaves(known.views)
    renames = Renames(base.store)
    former = FormerPermissions(base.store)
    told = (leaves, renames, former)
    drain = Drain(known.meshes, known.proxies, *told, base.clock, patience=patience, drain=drain_time)
    return Rollouts(controller=controller, drain=drain, leaves=leaves, former=former, reports=reports)
