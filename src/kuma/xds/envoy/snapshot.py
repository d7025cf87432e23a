"""Derives what every proxy of a mesh should run from the mesh view.

What is equal for many proxies is generated and serialised once and shared; a change touches only the proxies that
depend on what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property

from kuma.policy import caller_groups
from kuma.policy.permissions import Permissions
from kuma.policy.succession import Stage
from kuma.resources import tags as tag_rules
from kuma.resources.models import dataplane as dataplanes
from kuma.resources.models.blocks import transparent_proxying
from kuma.resources.models.dataplane import DataplaneSpec, Inbound, Networking
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.delta.session import Snapshot
from kuma.xds.envoy import redirected_traffic, tls
from kuma.xds.envoy.generated import Generated
from kuma.xds.envoy.lasting import Basis, Lasting, Proxied, Run, Served, Step
from kuma.xds.envoy.listeners import admin_listener, connection_limits, metrics_listener
from kuma.xds.envoy.listeners import inbound as inbound_listeners
from kuma.xds.envoy.listeners import outbound as outbound_listeners
from kuma.xds.envoy.listeners.connection_limits import Limits
from kuma.xds.envoy.listeners.inbound import InboundAccess, InboundPlace
from kuma.xds.envoy.listeners.outbound import OutboundPlace
from kuma.xds.envoy.mesh_wide.inbound_admissions import InboundAdmissions
from kuma.xds.envoy.mesh_wide.leaf_uris import LeafUris
from kuma.xds.envoy.mesh_wide.logged_calls import LoggedCalls
from kuma.xds.envoy.mesh_wide.metrics_places import MetricsPlaces
from kuma.xds.envoy.node import capabilities
from kuma.xds.envoy.node.capabilities import OLDEST, Capabilities
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.services.service_entries import Made, ServiceEntries
from kuma.xds.envoy.services.service_members import EVERYTHING, NOTHING_WITHHELD, ServiceMembers, Tags, Withheld

SETTLED = Stage()
_TYPES = tuple(TypeUrl)


class MeshConfig:
    """The Envoy resources of one mesh view. Immutable in effect: what it caches, it would compute again equally."""

    def __init__(
        self,
        view: MeshView,
        previous: MeshConfig | None = None,
        stage: Stage = SETTLED,
        withheld: Mapping[str, Withheld] | None = None,
        linger: timedelta = connection_limits.STANDARD_LINGER,
        *,
        has_service_addresses: bool = False,
    ) -> None:
        """Takes over from `previous` what is the same.

        `has_service_addresses` says that tags tell the addresses of services: nobody but the control plane writes them.
        """
        self.view = view
        self._linger = linger
        self._has_service_addresses = has_service_addresses
        self._withheld = withheld or {}
        self.stage = stage
        self.level = view.position.level
        known = previous.permissions if previous else Permissions()
        self.permissions: Permissions = known.following(view.permissions, view.mesh_permissions)
        carried, known_uris = self.selected | stage.carried, previous._uris if previous else None
        self._uris: LeafUris = LeafUris(view.name, carried, len(view.dataplanes), known_uris)
        self._service_members: ServiceMembers = (previous._service_members if previous else ServiceMembers()).following(
            view.dataplanes, self._withheld
        )
        self.admissions: InboundAdmissions = InboundAdmissions(
            view, self.permissions, stage, self._service_members, previous.admissions if previous else None
        )
        old = previous.view.dataplanes if previous else {}
        edited = self._edited_since(previous) if previous else frozenset(view.dataplanes)
        self._metrics: MetricsPlaces = (previous._metrics if previous else MetricsPlaces()).following(
            view.mesh.spec.metrics if view.mesh else None, old, view.dataplanes, edited
        )
        self._logged: LoggedCalls = LoggedCalls(view, previous._logged if previous else None)
        self.permissions.remember(self._service_members.inbounds)
        self._generated: Generated = previous._generated if previous else Generated()
        self._services: ServiceEntries = ServiceEntries(
            view.name,
            self._service_members,
            self._generated,
            mtls=self.level >= Level.ENCRYPTING,
            previous=previous._services if previous else None,
        )
        basis = Basis(self.level, self._limits, self._logged.logs, self.admissions.facets)
        self._basis: Basis = previous._basis if previous and previous._basis == basis else basis
        self._lasting: dict[str, Lasting] = previous._lasting if previous else {}
        for name in edited:
            self._lasting.pop(name, None)
        # What nobody has any more is forgotten.
        if len(self._lasting) > len(view.dataplanes):
            self._lasting = {name: one for name, one in self._lasting.items() if name in view.dataplanes}

    def snapshot(
        self, name: str, secrets: Mapping[str, Entry], admin_port: int = 0, envoy: Capabilities = OLDEST
    ) -> Snapshot:
        """Everything that the proxy of the Dataplane called `name` should run; nothing if it is not stored.

        `admin_port` is where its Envoy's administration is, by its own word; 0 if that is not known. `envoy` is what it
        can do.
        """
        resource = self.view.dataplanes.get(name)
        if resource is None:
            return {}
        return together(self.entries(name, admin_port, envoy), secrets)

    def entries(self, name: str, admin_port: int = 0, envoy: Capabilities = OLDEST) -> Iterator[tuple[TypeUrl, Entry]]:
        """Yields the same without the secrets, one by one: each is made when it is asked for, if it is not yet."""
        resource = self.view.dataplanes.get(name)
        if resource is None or self.is_excluded(name):
            return
        of = Proxied(resource, self.withheld(name), admin_port, envoy)
        known = self._lasting.get(name)
        if known is not None and known.holds(self._basis, of, self._services):
            for step in known.steps:
                yield from self._served(step) if isinstance(step, Served) else zip(*step, strict=True)
        else:
            yield from self._made_anew(of)
        if resource.spec.net.transparent_proxying is not None:
            yield from self._redirected(of)
        yield from self._metrics_of(name, resource, admin_port)

    def withheld(self, name: str) -> Withheld:
        """Returns the inbounds of a Dataplane that are not served."""
        return self._withheld.get(name, NOTHING_WITHHELD)

    def is_excluded(self, name: str) -> bool:
        """Tells whether a Dataplane is served nothing, because it may not be a member of its mesh."""
        return EVERYTHING in self.withheld(name)

    def uris(self, name: str) -> tuple[str, ...]:
        """Returns the URIs in the leaf of a Dataplane: services, and the tags that permissions select callers by.

        Empty if it is to have no leaf.
        """
        resource = self.view.dataplanes.get(name)
        return () if resource is None or self.is_excluded(name) else self._uris.of(resource)

    @property
    def selected(self) -> frozenset[str]:
        """The tags, other than the service, that permissions look at."""
        return self.permissions.source_tags

    def _made_anew(self, of: Proxied) -> Iterator[tuple[TypeUrl, Entry]]:
        """Yields what lasts and what is made of it, one by one, and keeps in mind what lasts."""
        steps, called, row = list[Step](), list[Made](), list[tuple[TypeUrl, Entry]]()
        for one in self._in_order(of, called):
            if isinstance(one, Served):
                steps += Run.of(row), one
                row = []
                yield from self._served(one)
            else:
                row.append(one)
                yield one
        self._lasting[of.resource.name] = Lasting(self._basis, of, tuple(called), (*steps, Run.of(row)))

    def _in_order(self, of: Proxied, called: list[Made]) -> Iterator[tuple[TypeUrl, Entry] | Served]:
        """Yields what lasts, in order, and notes what its outbounds lead to."""
        networking = of.resource.spec.net
        yield from admin_listener.entries(networking, of.admin_port, self._generated)
        for inbound in _one_at_each_place(networking, of.withheld):
            yield from self._inbound(of, inbound)
        for outbound in networking.calls:
            made = self._services.of(_sorted(outbound.tags))
            called.append(made)
            yield from self._outbound(of, outbound.address, outbound.port, made)

    def _outbound(self, of: Proxied, address: str, port: int, made: Made) -> Iterator[tuple[TypeUrl, Entry]]:
        cluster, service = made.cluster, made.service
        logged = self._logged.at_outbound(of.resource, service).without(of.envoy.unwritable)
        bound = transparent_proxying.binds_outbound(of.resource.spec.net.redirected, address)
        place = OutboundPlace(address, port, cluster.name, made.protocol, bound=bound)
        yield TypeUrl.CLUSTER, cluster
        yield TypeUrl.ENDPOINTS, made.endpoints
        as_group = self._offers(of, service)
        yield TypeUrl.LISTENER, self._generated.entry(outbound_listeners.listener, place, as_group, logged)
        if made.protocol in clusters.HTTP_PROTOCOLS:
            routes = (place.routes, service, cluster.name)
            yield TypeUrl.ROUTES, self._generated.entry(outbound_listeners.routes, *routes)

    def _redirected(self, of: Proxied) -> Iterator[tuple[TypeUrl, Entry]]:
        """Makes what the kernel brings to a proxy besides: of thousands of places nothing is kept in mind for each."""
        networking = of.resource.spec.net
        for (address, port), tags in redirected_traffic.whole(networking, self._balanced):
            yield from self._outbound(of, address, port, self._services.of(tags))
        passes_in, mtls = self.level is not Level.STRICT, self.level >= Level.ENCRYPTING
        passes_out = self.view.mesh is None or self.view.mesh.spec.passes_through
        yield from redirected_traffic.otherwise(self._generated, networking, of.withheld, passes_in, passes_out)
        for way in redirected_traffic.others(networking, self._places, self._balanced):
            logged = self._logged.at_outbound(of.resource, way.service).without(of.envoy.unwritable)
            offers = self._offers(of, way.service)
            yield from redirected_traffic.ways(self._generated, self.view.name, way, mtls, offers, logged)

    def _offers(self, of: Proxied, service: str) -> bool:
        """Tells whether a proxy offers its group of callers to a service.

        One that has got other services since it was started does not say that it is one of those that it was.
        """
        own = tls.group_alpn(caller_groups.group(of.resource.spec.services))
        return of.envoy.group in ("", own) and self._is_caller(of.resource.name, service)

    def _is_caller(self, name: str, service: str) -> bool:
        """Tells whether the service's inbounds know a Dataplane as one of their callers, by an outbound.

        Another one may be of a group that they have a chain for, which would admit those only that they know.
        """
        return name in self._service_members.callers.get(service, ())

    @cached_property
    def _balanced(self) -> redirected_traffic.Balanced:
        return redirected_traffic.balanced(self._service_members) if self._has_service_addresses else {}

    @cached_property
    def _places(self) -> redirected_traffic.Places:
        return redirected_traffic.places(self._service_members, has_pods=self._has_service_addresses)

    def _inbound(self, of: Proxied, inbound: Inbound) -> Iterator[tuple[TypeUrl, Entry] | Served]:
        networking = of.resource.spec.net
        target, port = dataplanes.workload(networking, inbound)
        address = dataplanes.listen_address(networking, inbound)
        bound = transparent_proxying.binds(networking.redirected, address)
        source = redirected_traffic.source(networking, address, target)
        cluster = self._generated.entry(clusters.local, target, port, inbound.protocol, "", source)
        logged = self._logged.at_inbound(of.resource, inbound).without(of.envoy.unwritable)
        also = tag_rules.also_at(inbound.tags) if self._has_service_addresses and not bound else ()
        place = InboundPlace(
            self.view.name, address, inbound.port, cluster.name, inbound.protocol, logged=logged, bound=bound
        )
        known_by = self.admissions.known_by(of.resource, inbound)
        # What its inbounds are is the same for all groups.
        envoy = capabilities.of_inbounds(of.envoy)
        frame = inbound_listeners.frame_without_tls if self.level is Level.PLAIN else inbound_listeners.frame
        yield TypeUrl.CLUSTER, cluster
        # Not further addresses of one listener: Envoy refuses one that gets or loses some.
        for one in (address, *also):
            framed = self._generated.entry(frame, place._replace(address=one), envoy, self._limits)
            yield Served(framed, known_by, inbound.service)

    def _served(self, inbound: Served) -> Iterator[tuple[TypeUrl, Entry]]:
        framed, is_http = inbound.framed, inbound.framed.place.is_http
        access = routed = None
        if self.level is not Level.PLAIN:
            access, routed = self.admissions.decision(inbound.known_by, is_http=is_http)
        if not is_http and framed.envoy.has_gates and access is not None and access.admission.principals:
            # Envoy takes up listeners in this order: a gate has to know the rules by which callers are accepted.
            yield TypeUrl.CLUSTER, self._generated.entry(inbound_listeners.gate_cluster, framed)
            rules = self.admissions.rules(inbound.known_by, access)
            yield TypeUrl.LISTENER, self._generated.entry(inbound_listeners.gate_listener, framed, rules)
        yield TypeUrl.LISTENER, self._generated.entry(inbound_listeners.listener, framed, access)
        if is_http:
            # Of an HTTP inbound the routes decide, at every request; the listener ends what is no longer admitted.
            yield TypeUrl.ROUTES, self._generated.entry(inbound_listeners.routes, framed, inbound.service, routed)

    def _metrics_of(
        self, name: str, dataplane: Resource[DataplaneSpec], admin_port: int
    ) -> Iterator[tuple[TypeUrl, Entry]]:
        """Makes what Prometheus reads. With mutual TLS callers are admitted as to an inbound with its tags."""
        scraping = self._metrics.scraping(dataplane.spec)
        if scraping is None or self._metrics.hindrance(name, dataplane, admin_port):
            return
        place = metrics_listener.place(self.view.name, dataplane.spec.net.address, scraping)
        tags, access, routed = dict(scraping.tags), None, None
        if not scraping.plaintext and self.level is not Level.PLAIN:
            declared = self.permissions.admission(tags)
            routed = self.admissions.staged(declared, tags, at_every_request=True)
            listed = self.admissions.staged(declared, tags, at_every_request=False)
            access = InboundAccess(listed, strict=True, label=self.admissions.label(declared))
        yield TypeUrl.CLUSTER, self._generated.entry(metrics_listener.cluster, admin_port)
        yield TypeUrl.LISTENER, self._generated.entry(metrics_listener.listener, place, access, self._limits)
        rules = (place, scraping.path, scraping.query, routed)
        yield TypeUrl.ROUTES, self._generated.entry(metrics_listener.routes, *rules)

    def not_served(self, name: str, admin_port: int, unwritable: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Says what a proxy does not serve although its Dataplane or its Mesh says so, and why."""
        unlogged = {
            f"access logs: Envoy cannot open {path}; tried again when kuma-dp is restarted" for path in unwritable
        }
        dataplane = self.view.dataplanes.get(name)
        hindrance = self._metrics.hindrance(name, dataplane, admin_port) if dataplane else ""
        return tuple(sorted({*self.withheld(name).values(), *((hindrance,) if hindrance else ()), *unlogged}))

    @cached_property
    def _limits(self) -> Limits:
        backend = self.view.enabled_backend
        return connection_limits.of(backend.leaf_lifetime, self._linger) if backend else connection_limits.NONE

    def affected_since(self, previous: MeshConfig) -> frozenset[str]:
        """Returns the Dataplanes whose snapshot, secrets apart, may differ from what `previous` gave."""
        old, new = previous.view, self.view
        same_permissions = old.permissions is new.permissions and old.mesh_permissions is new.mesh_permissions
        same_logs = old.traffic_logs is new.traffic_logs and old.mesh_access_logs is new.mesh_access_logs
        same_callers = previous.stage == self.stage and old.position.epoch == new.position.epoch
        if (
            previous.level != self.level
            or old.mesh is not new.mesh
            or not (same_permissions and same_callers and same_logs)
        ):
            return frozenset(new.dataplanes) | frozenset(old.dataplanes)
        edited = self._edited_since(previous)
        accompanied = self._service_members.accompanied(previous._service_members)
        called = (
            self._service_members.services.get(service, {}).keys()
            for service in self._service_members.called(previous._service_members, edited | accompanied)
            if self.admissions.callers_of(service) != previous.admissions.callers_of(service)
        )
        whole = self._services.changed if self._balanced or previous._balanced else ()
        by_place = redirected_traffic.concerned(self._service_members, previous._places, self._places, whole)
        by_outbound, by_metrics = self._services.callers_concerned(), self._metrics.changed_hands(previous._metrics)
        return edited.union(by_outbound, by_place, *called, by_metrics)

    def _edited_since(self, previous: MeshConfig) -> frozenset[str]:
        return self._service_members.edited(previous._service_members)


def together(entries: Iterable[tuple[TypeUrl, Entry]], secrets: Mapping[str, Entry]) -> Snapshot:
    """Returns the snapshot that consists of these."""
    found: dict[TypeUrl, dict[str, Entry]] = {type_url: {} for type_url in _TYPES}
    for type_url, entry in entries:
        found[type_url][entry.name] = entry
    found[TypeUrl.SECRET].update(secrets)
    return found


def _one_at_each_place(networking: Networking, withheld: Withheld) -> Iterator[Inbound]:
    """Yields the inbounds that are served; of those at one place, which are one listener, the first."""
    places: set[tuple[str, int]] = set()
    for index, inbound in enumerate(networking.inbound):
        place = dataplanes.place(networking, inbound)
        if index not in withheld and place not in places:
            places.add(place)
            yield inbound


def _sorted(tags: Mapping[str, str]) -> Tags:
    return tuple(sorted(tags.items()))
