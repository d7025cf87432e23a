"""A session against a model of Envoy: whatever changes, is rejected, overtaken or cut off, in the end both agree."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from google.protobuf import wrappers_pb2
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kuma.xds.delta.session import Request, Response, Session
from kuma.xds.envoy.resource import Entry, TypeUrl
from tests.fakes.examples import examples

CDS, EDS, SDS, LDS, RDS = TypeUrl
NAMES = "abcde"
Content = tuple[str, str, frozenset[str]]
"""A variant, "good" or "bad", and for a listener the clusters that it routes to."""

_contents: dict[str, Content] = {}


def _entry(name: str, content: Content) -> Entry:
    variant, quality, targets = content
    made = Entry.of(name, wrappers_pb2.StringValue(value=f"{name} {variant} {quality} {sorted(targets)}"))
    _contents[made.version] = content
    return made


def is_bad(version: str) -> bool:
    return _contents[version][1] == "bad"


class Envoy:
    """Runs what is good, rejects every response that holds something bad, and asks for what it refers to."""

    def __init__(self) -> None:
        self.runs: dict[TypeUrl, dict[str, str]] = {t: {} for t in TypeUrl}
        self.known: dict[TypeUrl, dict[str, str]] = {t: {} for t in TypeUrl}
        """The versions that it names when it connects again: of responses that it has acknowledged."""
        self.asked: dict[TypeUrl, set[str]] = {t: set() for t in TypeUrl}
        self.warming: set[str] = set()
        """Clusters that wait for their endpoints since they have changed."""
        self.in_vain: set[str] = set()
        """Clusters that went while a listener routed to them."""

    def connect(self) -> Iterable[Request]:
        """What it took of a rejected response it does not name, so that nobody can know: that is left out here."""
        self.asked |= {EDS: set(self.known[CDS]), RDS: set(self.known[LDS])}
        for t in TypeUrl:
            self.known[t] = {n: v for n, v in self.known[t].items() if t in (CDS, LDS) or n in self.asked[t]}
            self.runs[t] = dict(self.known[t])
        self.warming &= self.runs[CDS].keys()
        for t in TypeUrl:
            names = tuple(sorted(self.asked[t]))
            if t in (CDS, LDS) or names:
                yield Request(t, subscribe=names, initial_versions=dict(self.known[t]))

    def take(self, response: Response) -> Iterable[Request]:
        t, bad = response.type_url, [e for e in response.entries if is_bad(e.version)]
        for name in response.removed:
            self._lose(t, name)
        for entry in response.entries:
            if not is_bad(entry.version):
                self._run(t, entry)
            elif t not in (CDS, LDS):
                break  # the rest is not looked at
        if not bad:
            for entry in response.entries:
                self.known[t][entry.name] = entry.version
            for name in response.removed:
                self.known[t].pop(name, None)
        yield from self._subscriptions()
        yield Request(t, nonce=response.nonce, error="bad" if bad else None)

    def _run(self, t: TypeUrl, entry: Entry) -> None:
        if t is CDS and self.runs[CDS].get(entry.name) != entry.version:
            self.warming.add(entry.name)
        if t is EDS:
            self.warming.discard(entry.name)
        if t in (CDS, LDS) or entry.name in self.asked[t]:
            self.runs[t][entry.name] = entry.version

    def _lose(self, t: TypeUrl, name: str) -> None:
        if t is CDS and any(name in _contents[v][2] for v in self.runs[LDS].values()):
            self.in_vain.add(name)
        if t in (CDS, LDS):
            self.runs[t].pop(name, None)
        if t is CDS:
            self.warming.discard(name)

    def _subscriptions(self) -> Iterable[Request]:
        wanted = {EDS: set(self.runs[CDS]), RDS: set(self.runs[LDS]), SDS: self.asked[SDS]}
        if self.runs[CDS] or self.runs[LDS]:
            wanted[SDS] = self.asked[SDS] | {"a", "b"}
        for t, names in wanted.items():
            new, old = names - self.asked[t], self.asked[t] - names
            self.asked[t] = set(names)
            for name in old:
                self.runs[t].pop(name, None)
                self.known[t].pop(name, None)
            if new or old:
                yield Request(t, subscribe=tuple(sorted(new)), unsubscribe=tuple(sorted(old)))


variants, qualities = st.sampled_from("12"), st.sampled_from(["good", "good", "bad"])
alone = st.tuples(variants, qualities, st.just(frozenset[str]()))
routing = st.tuples(variants, qualities, st.frozensets(st.sampled_from(NAMES), max_size=2))
some = st.dictionaries(st.sampled_from(NAMES), alone, max_size=5)
routers = st.dictionaries(st.sampled_from(NAMES), routing, max_size=5)
NOTHING: Content = ("0", "good", frozenset())


class Conversation(RuleBasedStateMachine):
    """Changes, answers and requests in any order, and lost connections."""

    def __init__(self) -> None:
        super().__init__()
        self.envoy = Envoy()
        self.snapshot: dict[TypeUrl, Mapping[str, Entry]] = {}
        self._connect()

    def _connect(self) -> None:
        self.session = Session()
        self.session.publish(self.snapshot)
        self.to_envoy: deque[Response] = deque()
        self.to_us: deque[Request] = deque(self.envoy.connect())
        self.sent = 0

    @rule()
    def reconnect(self) -> None:
        self._connect()

    @rule(clusters=some, endpoints=some, secrets=some, listeners=routers, routes=some)
    def change(
        self,
        clusters: dict[str, Content],
        endpoints: dict[str, Content],
        secrets: dict[str, Content],
        listeners: dict[str, Content],
        routes: dict[str, Content],
    ) -> None:
        """Every cluster has endpoints, every listener routes; listeners route to clusters that exist."""
        there = {n: (v, q, targets & clusters.keys()) for n, (v, q, targets) in listeners.items()}
        found = {
            CDS: clusters,
            EDS: {n: endpoints.get(n, NOTHING) for n in clusters},
            SDS: {n: secrets.get(n, NOTHING) for n in ("ab" if clusters or listeners else "")},
            LDS: there,
            RDS: {n: routes.get(n, NOTHING) for n in listeners},
        }
        self.snapshot = {t: {n: _entry(n, c) for n, c in all_of_t.items()} for t, all_of_t in found.items()}
        self.session.publish(self.snapshot)

    @rule()
    def we_send(self) -> None:
        for response in self.session.responses():
            self.sent += 1
            self.to_envoy.append(response)

    @precondition(lambda self: self.to_envoy)
    @rule()
    def envoy_takes(self) -> None:
        self.to_us.extend(self.envoy.take(self.to_envoy.popleft()))

    @precondition(lambda self: self.to_us)
    @rule()
    def we_receive(self) -> None:
        self.session.receive(self.to_us.popleft())

    @invariant()
    def what_is_told_is_true(self) -> None:
        if self.session.converged:
            for t, wanted in self.snapshot.items():
                for name, entry in wanted.items():
                    assert self.envoy.runs[t].get(name) == entry.version, (t.name, name)

    @invariant()
    def only_what_is_bad_is_rejected(self) -> None:
        for state in self.session._types.values():
            assert all(is_bad(version) for version in state.rejected.values())

    @invariant()
    def no_cluster_goes_before_its_callers(self) -> None:
        if not any(is_bad(e.version) for e in self.snapshot.get(LDS, {}).values()):
            assert not self.envoy.in_vain
        self.envoy.in_vain.clear()

    def teardown(self) -> None:
        self.sent = 0
        while True:
            before = self.sent
            self.we_send()
            if before == self.sent and not self.to_us and not self.to_envoy:
                break
            assert self.sent < 120, "it goes on for ever"
            while self.to_envoy:
                self.envoy_takes()
            while self.to_us:
                self.we_receive()
        self.what_is_told_is_true()
        self._agrees()

    def _agrees(self) -> None:
        everything = [(t, e) for t, wanted in self.snapshot.items() for e in wanted.values()]
        for t, state in self.session._types.items():
            assert not state.pending and not state.doubted, t.name
            assert t not in (CDS, LDS) or self.envoy.runs[t].keys() <= self.snapshot.get(t, {}).keys()
        for t, entry in everything:
            runs = self.envoy.runs[t].get(entry.name)
            if is_bad(entry.version):
                assert runs != entry.version
            elif t in (CDS, LDS) or entry.name in self.envoy.asked[t]:
                assert runs == self.session.acked(t).get(entry.name) == entry.version, (t.name, entry.name)
        has_bad = any(is_bad(entry.version) for _, entry in everything)
        if everything:
            assert self.session.converged is not has_bad
            # Where nothing runs that secrets are for, they are not asked for: such a proxy does not serve.
            assert self.session.answered is (self.snapshot[SDS].keys() <= self.envoy.asked[SDS])
        for t in TypeUrl:
            wanted = self.snapshot.get(t, {}).values()
            bad = [e for e in wanted if is_bad(e.version) and (t in (CDS, LDS) or e.name in self.envoy.asked[t])]
            assert self.session.rejects(t) is bool(bad), t.name
        assert all(is_bad(self.snapshot[EDS][name].version) for name in self.envoy.warming)


Conversation.TestCase.settings = examples(150, steps=40)
TestConversation = Conversation.TestCase
