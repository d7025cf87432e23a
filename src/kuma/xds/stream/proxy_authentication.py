"""Authenticates connecting proxies: their claim, their token, and the Dataplane that they bring along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from envoy.config.core.v3 import base_pb2
from google.protobuf import json_format

from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, InvalidResource, Unauthenticated
from kuma.base.values import contact_limit, farewell, strict_json
from kuma.policy import membership
from kuma.resources import codec, kinds
from kuma.resources import tags as tag_rules
from kuma.resources.labels import REGISTERED
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.dataplane_insight import Version
from kuma.resources.resource import Key, Resource
from kuma.store.manager import ResourceManager
from kuma.store.views import Views
from kuma.tokens import dataplane_tokens
from kuma.tokens.signing_keys import Expired
from kuma.tokens.validation import STANDARD, Validation
from kuma.tokens.verified_tokens import VerifiedTokens
from kuma.xds.envoy.node import capabilities, node_metadata
from kuma.xds.envoy.node.capabilities import OLDEST, Capabilities
from kuma.xds.envoy.services import serving_label

BY_PROXY = "proxy"
_PLACES = (tag_rules.SERVICE_ADDRESS, tag_rules.ALSO_AT)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Presented:
    """The proxy's description of itself in the first request of its stream."""

    key: Key
    dataplane: Resource[DataplaneSpec] | None
    version: Version
    admin_port: int = 0
    """Where its Envoy's administration listens; 0 if it does not say."""
    envoy: Capabilities = OLDEST
    farewell: str = ""
    """The digest by which its kuma-dp proves that it ends; empty if it does not say."""
    holds_for: float = 0.0
    """For how many seconds what it listens by holds; 0 if for ever."""


class Admitted(NamedTuple):
    """The stored Dataplane of a proxy that is admitted; `is_new` if nothing of it was there before."""

    dataplane: Resource[DataplaneSpec]
    is_new: bool = False


def not_found(key: Key) -> str:
    """Returns the error for a Dataplane that is not stored, and did not come along."""
    return (
        f'resource "{key.mesh}.{key.name}" not found; create a Dataplane in Kuma CP first or pass it as an argument '
        "to kuma-dp"
    )


def proxy_key(node: base_pb2.Node) -> Key:
    """Returns the Dataplane that a node says it runs for.

    Raises:
        InvalidResource: its id is not `<mesh>.<name>`.
    """
    mesh, dot, name = node.id.partition(".")
    if not (mesh and dot and name):
        raise InvalidResource.of("node.id", f'has to be "<mesh>.<name>", got "{node.id[:300]}"')
    return kinds.DATAPLANE.key(name, mesh)


def presented(node: base_pb2.Node) -> Presented:
    """Read the node of a stream's first request.

    Raises:
        InvalidResource: the id is not `<mesh>.<name>`, or the Dataplane that came along is wrong or another one's.
    """
    key = proxy_key(node)
    metadata = _metadata(node)
    text = metadata.get("dataplane.resource")
    dataplane = _dataplane(text, key.mesh) if isinstance(text, str) and text else None
    if dataplane is not None and dataplane.key != key:
        raise InvalidResource.of("node.id", f"says {key}, but the resource that came along is {dataplane.key}")
    return Presented(
        key,
        dataplane,
        node_metadata.versions(metadata),
        _port(metadata.get("dataplane.admin.port")),
        capabilities.of(node, metadata),
        _text(metadata.get(farewell.DIGEST)),
        contact_limit.holds_for(metadata.get(contact_limit.LIMIT)),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _port(value: Any) -> int:
    digits = str(int(value)) if isinstance(value, float) and value.is_integer() else value
    return int(digits) if isinstance(digits, str) and _PORT.fullmatch(digits) and int(digits) <= 65535 else 0


def _metadata(node: base_pb2.Node) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json_format.MessageToDict(node.metadata)
    except (json_format.Error, ValueError) as error:  # of numbers that JSON has none of
        raise InvalidResource.of("node.metadata", f"is not valid JSON: {error}") from None
    return found


def _dataplane(text: str, mesh: str) -> Resource[DataplaneSpec]:
    try:
        document = strict_json.loads(text)
    except ValueError as error:
        raise InvalidResource.of("dataplane.resource", f"is not valid JSON: {error}") from None
    if not isinstance(document, dict) or document.get("type") != kinds.DATAPLANE.name:
        raise InvalidResource.of("dataplane.resource", "has to be a Dataplane in the Universal form")
    return codec.parse(document, default_mesh=mesh)


class ReviewedTokens(Protocol):
    """Tokens that somebody else has issued and reviews, in the place of dataplane tokens."""

    async def review(self, token: str) -> None:
        """Has a token reviewed, so that `verify` knows it; raises `Unauthenticated` or `Unavailable`."""

    def verify(self, mesh: str, token: str) -> dataplane_tokens.DataplaneClaims:
        """Returns who holds a token in a mesh, or with an empty one in its own; raises `Unauthenticated`."""


class Authenticator:
    """Admits proxies: by dataplane tokens, or by those that are `reviewed` elsewhere."""

    def __init__(
        self,
        manager: ResourceManager,
        views: Views,
        clock: Clock,
        validation: Validation = STANDARD,
        reviewed: ReviewedTokens | None = None,
    ) -> None:
        self._tokens = VerifiedTokens(validation)
        self._reviewed = reviewed
        self._manager = manager
        self._views = views
        self._clock = clock

    async def admit(self, proxy: Presented, identity: dataplane_tokens.DataplaneClaims) -> Admitted:
        """Returns the stored Dataplane of an authenticated proxy; stores the one that it brought along.

        A token has to hold for what is stored as well as for what is to replace it: otherwise any service could
        take the place of another by its name.

        Raises:
            AccessDenied: the token is another proxy's, or there is no such Dataplane.
            InvalidResource: the Dataplane breaks a rule.
        """
        self.check_brought(identity, proxy.dataplane)
        brought = proxy.dataplane
        asks = brought is None or self.exclusion(brought)
        stored = await self._manager.find(proxy.key) if asks else None
        if brought is None or (stored is not None and self.exclusion(stored)):
            if stored is None:
                raise AccessDenied(not_found(proxy.key))
            for dataplane in filter(None, (stored, brought)):
                self.authorize(identity, dataplane)
            return Admitted(
                stored
            )  # who may not be a member is sent nothing, so that it does not go on with what it has

        def arrived(stored: Resource[DataplaneSpec] | None) -> Resource[DataplaneSpec]:
            for dataplane in filter(None, (stored, brought)):
                self.authorize(identity, dataplane)
            return _registered(brought, stored)

        # What it is by now is for its token to say: a guard that refused it would keep it out until somebody comes.
        seems_new = proxy.key.name not in self._views.view(proxy.key.mesh).dataplanes
        outcome = await self._manager.change(proxy.key, arrived, allow_weakening=True, seems_new=seems_new)
        return Admitted(outcome.resource, is_new=outcome.created)

    async def review(self, token: str) -> None:
        """Has a token reviewed by whoever issued it, if that is somebody else: before it is authenticated.

        Raises:
            Unauthenticated: it does not hold.
            Unavailable: that cannot be told now.
        """
        if self._reviewed is not None:
            await self._reviewed.review(token)

    def authenticate(self, mesh: str, token: str) -> dataplane_tokens.DataplaneClaims:
        """Authenticates the holder of `token` with the signing keys of the mesh, or by its review.

        Raises:
            Unauthenticated: it is missing or does not hold.
        """
        if self._reviewed is not None:
            return self._reviewed.verify(mesh, token)
        if not token:
            raise Unauthenticated(
                "a dataplane token is required; make one with `kumactl generate dataplane-token` "
                "and give it to kuma-dp with --dataplane-token-file"
            )
        return self._tokens.claims(token, mesh, self._views.view(mesh).secrets, self._clock.now())

    def authenticate_holder(self, token: str) -> dataplane_tokens.DataplaneClaims | None:
        """Authenticates the holder of `token` before anything that it sends is parsed, by the mesh that it names.

        None if that can only be decided by what is sent: it names no mesh, or its one fault is that it has expired.

        Raises:
            Unauthenticated: it is missing or does not hold.
        """
        if self._reviewed is not None:
            return self._reviewed.verify("", token)
        mesh = dataplane_tokens.named_mesh(token) if token else ""
        try:
            return self.authenticate(mesh, token) if mesh or not token else None
        except Expired:
            return None

    def identify(
        self, mesh: str, token: str, holder: dataplane_tokens.DataplaneClaims | None
    ) -> dataplane_tokens.DataplaneClaims:
        """Returns who speaks for `mesh`: the `holder` of the token, if that was authenticated for it already.

        Raises:
            Unauthenticated: the token does not hold in this mesh.
        """
        return holder if holder is not None and holder.mesh == mesh else self.authenticate(mesh, token)

    def verifies_by(self, mesh: str) -> object:
        """Returns what tokens of a mesh are verified by now: the same object as long as that is the same."""
        return self._views.view(mesh).secrets

    def confirm(self, mesh: str, token: str, identity: dataplane_tokens.DataplaneClaims, by: object) -> None:
        """Authenticates a holder again, unless it was `by` the very keys and revocations of now, and has not expired.

        Raises:
            Unauthenticated: the token holds no longer.
        """
        same = self._reviewed is None and by is self.verifies_by(mesh)
        if not same or self._clock.now() >= identity.expires:
            self.authenticate(mesh, token)

    def authorize(self, identity: dataplane_tokens.DataplaneClaims, dataplane: Resource[DataplaneSpec]) -> None:
        """Check that the token may be used for this Dataplane.

        Raises:
            AccessDenied: it may not; the text says what differs.
        """
        dataplane_tokens.authorize(identity, dataplane.mesh, dataplane.name, dataplane.spec)

    def check_brought(
        self, identity: dataplane_tokens.DataplaneClaims, brought: Resource[DataplaneSpec] | None
    ) -> None:
        """Check that a proxy may bring its Dataplane along, if it does.

        Raises:
            AccessDenied: it may run only for the one that is stored; or it says at which addresses whole services are
                called, by which it would be called in the place of others.
        """
        if brought is None:
            return
        if not identity.registers:
            raise AccessDenied("the Dataplane of a Pod follows from the Pod: none may be brought along")
        for index, inbound in enumerate(brought.spec.net.inbound):
            if tag := next((tag for tag in inbound.tags if tag.startswith(_PLACES)), ""):
                raise AccessDenied(
                    f'networking.inbound[{index}].tags["{tag}"]: at which addresses services are called is not for '
                    "proxies to say; leave it out"
                )

    def check(self, key: Key, token: str) -> None:
        """Check that the token that a stream was opened with still holds.

        Raises:
            Unauthenticated: it does not.
        """
        self.authenticate(key.mesh, token)

    def exclusion(self, dataplane: Resource[DataplaneSpec]) -> str:
        """Returns why a Dataplane may not be a member of its mesh; empty if it may."""
        mesh = self._views.view(dataplane.mesh).mesh
        return membership.exclusion(dataplane.mesh, mesh.spec.membership, dataplane.spec) if mesh else ""


def _registered(brought: Resource[DataplaneSpec], stored: Resource[DataplaneSpec] | None) -> Resource[DataplaneSpec]:
    """Stores the Dataplane that came along, in place of `stored`."""
    if stored is not None:  # one that was created through the API stays what it is: not removed when the proxy leaves
        return serving_label.begun(replace(brought, labels=dict(stored.labels)))
    return serving_label.as_not_serving(replace(brought, labels={**brought.labels, REGISTERED: BY_PROXY}))
