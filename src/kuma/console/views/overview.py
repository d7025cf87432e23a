"""Sums up meshes: where each stands, and what needs attention. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from kuma.console.views.course import Course, course
from kuma.foresight import health
from kuma.foresight.course import Insights
from kuma.foresight.findings import Finding
from kuma.foresight.health import Examined
from kuma.foresight.traffic import TrafficSummary
from kuma.resources.view import MeshView

_ORDER = ("failure", "warning", "ok")


class Summary(NamedTuple):
    """A mesh in one line, with what needs attention."""

    name: str
    course: Course
    online: int
    dataplanes: int
    permissions: int
    plaintext_callers: int
    findings: Sequence[Finding]

    @property
    def failures(self) -> int:
        """Findings that are failures."""
        return sum(finding.status == "failure" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Findings that are warnings."""
        return sum(finding.status == "warning" for finding in self.findings)


def summary(view: MeshView, insights: Insights, traffic: TrafficSummary, now: datetime) -> Summary:
    """Sums up a mesh."""
    examined = health.examine(Examined(view, insights, traffic, now))
    return Summary(
        name=view.name,
        course=course(view, now),
        online=sum(one.online for name, one in insights.items() if name in view.dataplanes),
        dataplanes=len(view.dataplanes),
        permissions=len(view.permissions) + len(view.mesh_permissions),
        plaintext_callers=traffic.plaintext.callers_last_hour,
        findings=worst_first(examined),
    )


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Returns what needs attention, failures first."""
    wrong = [finding for finding in findings if finding.status != "ok"]
    return tuple(sorted(wrong, key=lambda finding: (_ORDER.index(finding.status), finding.mesh)))
