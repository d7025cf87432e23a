"""Says what a change of a mesh does to the callers that were seen: whom it refuses, whom it lets in. Pure.

It compares what two views decide about the same call. What was recorded says who called, not what is decided: meanwhile
permissions may have changed. Of a caller with mesh TLS the certificate is known; after the change it shows what the
permissions look at then, so each Dataplane that may have shown it is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

from kuma.foresight.judge import Dataplane, Judge
from kuma.foresight.traffic import SeenCaller
from kuma.pki import spiffe
from kuma.policy.decision import REFUSED, Verdict
from kuma.resources import tags as tag_rules
from kuma.resources.models.dataplane import Inbound
from kuma.resources.models.mesh_transition import Level
from kuma.resources.models.observed_traffic import How
from kuma.resources.resource import Model
from kuma.resources.view import MeshView

Effect = Literal["refused", "admitted", "wouldBeRefused"]
_STRICT = "STRICT refuses whoever does not show a certificate of the mesh"


class AffectedCaller(Model):
    """A caller of an inbound for which a change decides otherwise; `dataplanes` are the callers', as far as known.

    `seen` is false of one that has an outbound to the service and has not been seen to call: then there is no `last`.
    """

    effect: Effect
    service: str
    dataplane: str
    port: int
    caller: str
    how: How
    why: str
    seen: bool = True
    dataplanes: tuple[str, ...] = ()
    address: str = ""
    last: datetime | None = None
    connections: int = 0
    last_day: int = 0


def effect(before: Verdict, after: Verdict) -> Effect | None:
    """Returns what a change does to a caller; None if it does nothing."""
    if after == REFUSED:
        return "refused" if before != REFUSED else None
    if before == REFUSED:
        return "admitted"
    return "wouldBeRefused" if after == "wouldBeRefused" and before != after else None


@dataclass(frozen=True)
class Consequences:
    """Compares two views of a mesh."""

    before: MeshView
    after: MeshView

    @cached_property
    def old(self) -> Judge:
        """Judges by what is declared before the change."""
        return Judge(self.before)

    @cached_property
    def new(self) -> Judge:
        """Judges by what is declared after it."""
        return Judge(self.after)

    def on(self, seen: Iterable[SeenCaller]) -> Iterator[AffectedCaller]:
        """Yields those of the callers that were seen for which something changes."""
        for caller in seen:
            if caller.how == "meshTls":
                yield from self._on_mesh_caller(caller)
            else:
                yield from self._on_unverified(caller)

    def _on_mesh_caller(self, caller: SeenCaller) -> Iterator[AffectedCaller]:
        shown = spiffe.tags(caller.mesh, caller.uris)
        services = frozenset(value for name, value in shown if name == tag_rules.SERVICE)
        known = self.old.by_services.get(services, ())
        now = [d for d in known if self.old.shown_by(d) == shown] or [d for d in known if shown <= _tags(d)]
        there = [d for d in now if d.name in self.after.dataplanes]
        if now and not there:
            return  # the caller goes with the change
        if not there:
            changed = self._judged(caller, shown, shown)
            if changed is not None:
                yield _affected(caller, *changed, ())
            return
        found: dict[tuple[Effect, str], list[str]] = {}
        for dataplane in there:
            after = self.after.dataplanes[dataplane.name]
            changed = self._judged(caller, self.old.shown_by(dataplane), self.new.shown_by(after))
            if changed is not None:
                found.setdefault(changed, []).append(dataplane.name)
        for (what, why), names in found.items():
            yield _affected(caller, what, why, tuple(sorted(names)))

    def _judged(
        self, caller: SeenCaller, shown: frozenset[tuple[str, str]], shown_after: frozenset[tuple[str, str]]
    ) -> tuple[Effect, str] | None:
        was, becomes = (judge.inbound(caller.dataplane, caller.port) for judge in (self.old, self.new))
        if was is None:
            return None
        before = self.old.of_mesh(shown, *was)
        if becomes is None:
            return self._gone(caller, before)
        what = effect(before, self.new.of_mesh(shown_after, *becomes))
        return (what, self._reason(becomes)) if what else None

    def _on_unverified(self, caller: SeenCaller) -> Iterator[AffectedCaller]:
        was, becomes = (judge.inbound(caller.dataplane, caller.port) for judge in (self.old, self.new))
        if was is None:
            return
        before = self.old.unverified
        if becomes is None:
            gone = self._gone(caller, before)
            if gone is not None:
                yield _affected(caller, *gone, ())
            return
        if self.new.level is not Level.PLAIN and (self.old.level is Level.PLAIN or caller.outcome == "unchecked"):
            proxies = self._at(caller)
            if proxies:  # they encrypt as soon as they may
                yield from self._on_proxies(caller, proxies, becomes)
                return
        what = effect(before, self.new.unverified)
        if what:
            yield _affected(caller, what, _STRICT if what == "refused" else "it is not asked for a certificate", ())

    def _on_proxies(
        self, caller: SeenCaller, proxies: Iterable[Dataplane], becomes: tuple[Dataplane, Inbound]
    ) -> Iterator[AffectedCaller]:
        refused = [p.name for p in proxies if self.new.of_mesh(self.new.shown_by(p), *becomes) == REFUSED]
        if refused:
            yield _affected(caller, "refused", self._reason(becomes), tuple(sorted(refused)))

    def _at(self, caller: SeenCaller) -> list[Dataplane]:
        """Returns the Dataplanes at a caller's address that have an outbound to what it calls."""
        return [
            dataplane
            for name, dataplane in self.after.dataplanes.items()
            if caller.address in (dataplane.spec.net.address, dataplane.spec.net.advertised_address)
            and any(outbound.service == caller.service for outbound in dataplane.spec.net.calls)
        ]

    def _gone(self, caller: SeenCaller, before: Verdict) -> tuple[Effect, str] | None:
        """Tells that callers of an inbound that is no more are refused, unless others serve the same."""
        others = (i.service for d in self.after.dataplanes.values() for i in d.spec.net.inbound)
        return ("refused", "nobody serves it any more") if before != REFUSED and caller.service not in others else None

    def _reason(self, becomes: tuple[Dataplane, Inbound]) -> str:
        if self.new.level is Level.PLAIN:
            return "mutual TLS is off: nobody is asked who it is"
        permission = self.new.admission(*becomes).permission
        return f"decided by {permission}" if permission else "no permission selects what it calls"

    def unseen(self, seen: Iterable[SeenCaller]) -> Iterator[AffectedCaller]:
        """Yields Dataplanes with an outbound to a service that would be refused there, and were not seen to call it."""
        known = {(caller.caller, caller.service) for caller in seen if caller.how == "meshTls"}
        serving: dict[str, list[tuple[Dataplane, Inbound]]] = {}
        for dataplane in self.after.dataplanes.values():
            for inbound in dataplane.spec.net.inbound:
                serving.setdefault(inbound.service, []).append((dataplane, inbound))
        told: set[tuple[str, str]] = set()
        for name, dataplane in self.after.dataplanes.items():
            was = self.before.dataplanes.get(name)
            caller = ",".join(dataplane.spec.services)
            for service in {outbound.service for outbound in dataplane.spec.net.calls}:
                pair = caller, service
                if was is None or pair in known or pair in told:
                    continue
                for called, inbound in serving.get(service, ()):
                    before = self.old.inbound(called.name, inbound.port)
                    if before is None:
                        continue
                    verdicts = (
                        self.old.of_mesh(self.old.shown_by(was), *before),
                        self.new.of_mesh(self.new.shown_by(dataplane), called, inbound),
                    )
                    if effect(*verdicts) == "refused":
                        told.add(pair)
                        yield AffectedCaller(
                            effect="refused", service=service, dataplane=called.name, port=inbound.port, caller=caller,
                            how="meshTls", why=self._reason((called, inbound)), seen=False, dataplanes=(name,),
                        )  # fmt: skip
                        break


def _tags(dataplane: Dataplane) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, values in dataplane.spec.tag_values.items() for value in values)


def _affected(caller: SeenCaller, what: Effect, why: str, dataplanes: tuple[str, ...]) -> AffectedCaller:
    return AffectedCaller(
        effect=what,
        service=caller.service,
        dataplane=caller.dataplane,
        port=caller.port,
        caller=caller.caller,
        how=caller.how,
        why=why,
        dataplanes=dataplanes or caller.known_as,
        address=caller.address,
        last=caller.last,
        connections=caller.connections,
        last_day=caller.last_day,
    )
