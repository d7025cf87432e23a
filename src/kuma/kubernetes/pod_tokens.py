"""Proxies on Kubernetes prove who they are by the token of their Pod's ServiceAccount, which the API server reviews.

A token counts that is for this control plane and bound to a Pod. Its holder is that Pod, and may run for the Dataplane
of it and for no other: neither one of the same ServiceAccount, nor one that it would bring along.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import Unauthenticated, Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object
from kuma.kubernetes.api.informer import Informer, Place
from kuma.kubernetes.workloads import metadata
from kuma.tokens.dataplane_tokens import DataplaneClaims

log = structlog.get_logger(__name__)

_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
_USER = "system:serviceaccount:"
_POD_NAME, _POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"
_FRESH = 10.0
"""Seconds in which the streams that a proxy opens at once need one review."""
_LONGEST = 16 * 1024
_MISSING = "the token of the Pod's ServiceAccount is required, which an injected sidecar has"


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The API server's word on a token: its Pod, that Pod's identity and ServiceAccount, and its own end.

    `mesh` is the one of the Pod at that time.
    """

    place: Place
    uid: str
    account: str
    expires: datetime
    at: float
    mesh: str = ""


class PodTokens:
    """Knows tokens that have been reviewed, as long as they and their Pods last. `pods` is run by somebody else."""

    def __init__(self, client: ApiClient, pods: Informer, audience: str, clock: Clock) -> None:
        self._client = client
        self._pods = pods
        self._audience = audience
        self._clock = clock
        self._known: dict[bytes, Reviewed] = {}
        """By digests of the tokens, which are kept nowhere."""
        self._listeners: list[Callable[[str], None]] = []
        pods.on_change(self._pod_changed)

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the name of each Dataplane whose Pod is gone, or another one than was reviewed."""
        self._listeners.append(listener)

    def _pod_changed(self, place: Place) -> None:
        pod = self._pods.objects.get(place)
        uid = pod["metadata"]["uid"] if pod is not None and metadata.is_injected(pod) else ""
        mesh = metadata.mesh_of(pod) if pod is not None else ""
        if any(known.place == place and (known.uid, known.mesh) != (uid, mesh) for known in self._known.values()):
            for listener in self._listeners:
                listener(_name(place))

    async def review(self, token: str) -> None:
        """Has a token reviewed, unless it has just been.

        Raises:
            Unauthenticated: it does not hold.
            Unavailable: that cannot be told now: the API server does not answer, or we are behind it.
        """
        if not token:
            raise Unauthenticated(_MISSING)
        if len(token) > _LONGEST:
            raise Unauthenticated("the token is longer than any of a ServiceAccount")
        digest, now = _digest(token), self._clock.monotonic()
        known = self._known.get(digest)
        if known is not None and now - known.at < _FRESH:
            return
        try:
            found = self._holder(await self._ask(token), token, now)
        except Unauthenticated:
            self._known.pop(digest, None)
            raise
        await self._pods.listed.wait()
        pod = self._pods.objects.get(found.place)
        if pod is None or pod["metadata"]["uid"] != found.uid:
            raise Unavailable(f"Pod {_name(found.place)} is not known here yet; try again")
        self._forget_ended()
        self._known[digest] = replace(found, mesh=metadata.mesh_of(pod))

    async def _ask(self, token: str) -> Object:
        body = {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }  # fmt: skip
        try:
            status: Object = (await self._client.create(_REVIEWS, body)).get("status") or {}
        except ApiError as error:
            log.error("tokens of Pods cannot be reviewed", reason=str(error))
            raise Unavailable(f"the Kubernetes API does not review tokens: {error}") from None
        if not status.get("authenticated"):
            log.info("a token does not hold", reason=str(status.get("error") or "")[:500])
            raise Unauthenticated("the Kubernetes API says that the token does not hold")
        if self._audience not in (status.get("audiences") or ()):
            raise Unauthenticated(f"the token is not for {self._audience}")
        return status

    def _holder(self, status: Object, token: str, now: float) -> Reviewed:
        user = status.get("user") or {}
        name, extra = str(user.get("username") or ""), user.get("extra") or {}
        namespace, colon, account = name.removeprefix(_USER).partition(":")
        pod, uid = ((extra.get(key) or [""])[0] for key in (_POD_NAME, _POD_UID))
        if not (name.startswith(_USER) and colon and account and pod and uid):
            raise Unauthenticated("the token is of no Pod's ServiceAccount: it has to be bound to a Pod")
        return Reviewed((namespace, pod), uid, account, _end(token), now)

    def verify(self, mesh: str, token: str) -> DataplaneClaims:
        """Returns who holds a token that has been reviewed; an empty mesh stands for that of its Pod.

        Raises:
            Unauthenticated: it does not hold, or not any more, or its Pod is of another mesh.
        """
        known = self._known.get(_digest(token)) if token else None
        if known is None:
            raise Unauthenticated(_MISSING if not token else "the token has not been reviewed")
        if known.expires <= self._clock.now():
            raise Unauthenticated("the token has expired")
        pod = self._pods.objects.get(known.place)
        name = _name(known.place)
        if pod is None or pod["metadata"]["uid"] != known.uid:
            raise Unauthenticated(f"the token is of Pod {name}, which is gone")
        if (pod["spec"].get("serviceAccountName") or "default") != known.account:
            raise Unauthenticated(f"the token is of another ServiceAccount than that of Pod {name}")
        if not metadata.is_injected(pod):
            raise Unauthenticated(f"Pod {name} has no sidecar: it has no part in a mesh")
        own = metadata.mesh_of(pod)
        if mesh and mesh != own:
            raise Unauthenticated(f"proxy mesh from requestor: {mesh} is different than that of Pod {name}: {own}")
        return DataplaneClaims(own, name, expires=known.expires, warned=known.expires, registers=False)

    def _forget_ended(self) -> None:
        now = self._clock.now()
        for digest in [digest for digest, known in self._known.items() if known.expires <= now]:
            del self._known[digest]


def _name(place: Place) -> str:
    return f"{place[1]}.{place[0]}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _end(token: str) -> datetime:
    """Returns the end of a token that the API server has found to be right."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return datetime.fromtimestamp(int(claims["exp"]), UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError, binascii.Error):
        raise Unauthenticated("the token does not say when it ends") from None
