"""The parts of the control plane that pages use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kuma.api.context import ApiContext
from kuma.api.http.access_control import Caller
from kuma.console.followed import Followed
from kuma.console.record import SharedRecord
from kuma.console.sessions import Sessions
from kuma.foresight.course import Insights
from kuma.foresight.preview import Known
from kuma.foresight.traffic import SeenCaller, TrafficSummary
from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.resources.view import MeshView

Observed = Callable[[str, Mapping[str, ObservedTrafficSpec]], Mapping[str, ObservedTrafficSpec]]
"""A mesh and what is stored of its traffic -> that, and what was heard since."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page: the caller that the API would see, and what forms prove by that they are of its pages."""

    caller: Caller
    proof: str = ""
    has_session: bool = False
    problem: str = ""
    """Why a session does not hold."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A mesh as it is at an instant."""

    view: MeshView
    insights: Insights
    callers: Sequence[SeenCaller]
    known: Known

    @property
    def summary(self) -> TrafficSummary:
        """Returns what is known of its traffic."""
        return self.known.summary


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleContext:
    """What the console is made of: it is shown what the API is shown, and changes what the API changes."""

    api: ApiContext
    sessions: Sessions
    followed: Followed
    observed: Observed
    record: SharedRecord
