"""Says how a change of mutual TLS would go: its steps, how long they take, who cannot follow. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from kuma.foresight.judge import Judge
from kuma.mtls.steps import next_step
from kuma.mtls.steps.next_step import Declared
from kuma.pki import pem
from kuma.pki.authority import AuthorityUnusable
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.models.mesh import Backend
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Model
from kuma.resources.view import MeshView

Insights = Mapping[str, DataplaneInsightSpec]
"""What is known of proxies, by the names of their Dataplanes."""
_USUAL = timedelta(seconds=2)
_MOST_STEPS = 20
_NEW = "new"


class Pace(NamedTuple):
    """How long a step waits for a proxy that does not answer, for one that is away, and for connections to end."""

    answer: timedelta
    absence: timedelta
    drain: timedelta


DEFAULT_PACE = Pace(timedelta(seconds=30), timedelta(seconds=15), timedelta(seconds=10))
"""That of a control plane whose settings say nothing else."""


class Step(Model):
    """A step of a staged change: how long it is likely to take, and how long at most."""

    step: str
    likely_seconds: float
    at_most_seconds: float


class Laggard(Model):
    """A proxy that cannot follow a change as it is now."""

    dataplane: str
    reason: str


class Ending(Model):
    """A certificate that ends before a change can be complete."""

    of: str
    ends: datetime


def steps(before: MeshView, after: MeshView, laggards: tuple[Laggard, ...], pace: Pace) -> Iterator[Step]:
    """Yields the steps that lead from where a mesh is to what it would declare; none if it is there already."""
    position, declared = before.position, _declared(before, after)
    for _ in range(_MOST_STEPS):
        following = next_step.next_position(position, declared, settled=True)
        if following == position:
            return
        before_it, position = position, following
        # The last step is complete when everybody runs it; nobody is waited for beyond that.
        drain = pace.drain if position.draining else timedelta()
        likely = (pace.absence if laggards else _USUAL) + drain
        at_most = pace.answer + drain
        text = next_step.step(position, declared)
        if text == next_step.FINISHING and position.level is not before_it.level:
            text = f"{text}: {next_step.LEVELS[position.level]}"
        yield Step(step=text, likely_seconds=likely.total_seconds(), at_most_seconds=at_most.total_seconds())


def _declared(before: MeshView, after: MeshView) -> Declared:
    """Returns what a mesh would declare, with a stand-in for each authority that would be another one."""
    level, position = Judge(after).level, before.position
    backend = after.enabled_backend
    if backend is None:
        return Declared(Level.PLAIN, "", position.roots)
    changed = {b.name for b in after.backends if not _is_same(before, after, b)}
    left = {b.name for b in before.backends} - {b.name for b in after.backends}
    roots = position.roots if not changed else (*position.roots, _NEW)
    if left or (changed and len(after.backends) == 1):
        roots = (_NEW,) if changed else position.roots[:1]
    authority = _NEW if backend.name in changed or not position.authority else position.authority
    if before.enabled_backend is not None and before.enabled_backend.name != backend.name:
        authority = _NEW
    return Declared(level, authority, roots or (_NEW,))


def _is_same(before: MeshView, after: MeshView, backend: Backend) -> bool:
    """Tells whether an authority is the one that it was: declared equally, of Secrets that are the same."""
    old = next((b for b in before.backends if b.name == backend.name), None)
    if old is None or (old.type, old.settings) != (backend.type, backend.settings):
        return False
    named = (source.secret for source in (backend.settings.cert, backend.settings.key) if source and source.secret)
    return all(
        (before.secrets[name].spec if name in before.secrets else None)
        == (after.secrets[name].spec if name in after.secrets else None)
        for name in named
    )


def laggards(view: MeshView, insights: Insights, now: datetime) -> Iterator[Laggard]:
    """Yields the proxies that cannot follow a change: away, rejecting what they get, or without a token that holds."""
    for name in sorted(view.dataplanes):
        insight = insights.get(name)
        if insight is None:
            continue  # nobody has started it: it follows when it comes
        if not insight.online:
            yield Laggard(dataplane=name, reason=_away(insight, now))
            continue
        for rejection in _rejections(insight):
            yield Laggard(dataplane=name, reason=f"rejects its configuration: {rejection}")
        if insight.token is not None and insight.token.expiration_time <= now:
            yield Laggard(dataplane=name, reason="its token has expired: it gets no new certificate")


def _away(insight: DataplaneInsightSpec, now: datetime) -> str:
    left = max((s.disconnect_time for s in insight.subscriptions if s.disconnect_time), default=None)
    since = f" since {left:%Y-%m-%d %H:%M:%S} UTC" if left else ""
    last = insight.last_contact
    goes_on = f", and may go on as it is until {last.may_serve_until:%Y-%m-%d %H:%M:%S} UTC" if last else ""
    return f"is not connected{since}{goes_on if last and last.may_serve_until > now else ''}"


def _rejections(insight: DataplaneInsightSpec) -> Iterator[str]:
    status = insight.subscriptions[-1].status
    for bucket in (status.cds, status.eds, status.lds, status.rds, status.sds):
        if bucket.last_rejection:
            yield " ".join(bucket.last_rejection.split())


def endings(before: MeshView, after: MeshView, insights: Insights, complete: datetime) -> Iterator[Ending]:
    """Yields the certificates that end before a change can be complete: those that are there, and a CA that comes."""
    for backend in before.transition.spec.backends if before.transition else ():
        if backend.not_after is not None and backend.not_after <= complete:
            yield Ending(of=f"the CA {backend.name}", ends=backend.not_after)
    for new in after.backends:
        ends = None if _is_same(before, after, new) else _end(new, after)
        if ends is not None and ends <= complete:
            yield Ending(of=f"the CA {new.name} that comes", ends=ends)
    for name, insight in sorted(insights.items()):
        ends = insight.mtls.certificate_expiration_time if insight.mtls else None
        if name in before.dataplanes and ends is not None and ends <= complete and not insight.online:
            yield Ending(of=f"the certificate of {name}, which is not connected", ends=ends)


def _end(backend: Backend, view: MeshView) -> datetime | None:
    """Returns when a provided CA ends, as far as its chain stands in the Mesh or in a Secret."""
    source = backend.settings.cert
    if source is None:
        return None
    secret = view.secrets.get(source.secret or "")
    content = secret.spec.data if secret else source.inline or (source.inline_string or "").encode()
    try:
        return min(one.not_valid_after_utc for one in pem.read_chain(content)) if content else None
    except AuthorityUnusable:
        return None  # it is refused when it is applied, with the reason


def concerns_tls(before: MeshView, after: MeshView) -> bool:
    """Tells whether a change would begin a staged one: of the level, or of the authorities."""
    same = all(_is_same(before, after, backend) for backend in after.backends)
    names = [[b.name for b in view.backends] for view in (before, after)]
    enabled = [view.enabled_backend.name if view.enabled_backend else "" for view in (before, after)]
    levels = [Judge(view).level for view in (before, after)]
    return not (same and names[0] == names[1] and enabled[0] == enabled[1] and levels[0] == levels[1])
