"""Looks whether the cluster is as this version of the control plane needs it, and tells what is not.

Nothing stops because of it: a control plane that lacks something does the rest, and proxies keep what they have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog

import kuma
from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import Unavailable
from kuma.kubernetes import leadership
from kuma.kubernetes.api import events
from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.install import access, fitness, manifests
from kuma.kubernetes.install.options import Options
from kuma.pki.validity import Validity

log = structlog.get_logger(__name__)

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ELSEWHERE = "default"
"""A namespace in which the control plane has no more than it has everywhere."""
_LOOK, _LOOK_AGAIN = 3600.0, 30.0
"""Seconds between two looks: when nothing was missing, and when something was."""
_RETRY = aio.Backoff(first=1.0, last=60.0)
_SOURCE = "kuma.io/control-plane"
_FINISH = "During an upgrade that is as it should be; if none is under way, see to it that all are of one version"
_RENEW = "Replace the Secret that was given; one of the control plane's own it renews: its log says why it does not"


class Preconditions:
    """Looks at the start, and now and again."""

    def __init__(
        self, client: ApiClient, chosen: Options, clock: Clock, pod: str, certificate: Callable[[], Validity]
    ) -> None:
        """`pod` is the Pod that we are in; what is missing is told by an event of it.

        `certificate` tells when the one ends by which the API server knows the webhooks.
        """
        self._client = client
        self._chosen = chosen
        self._clock = clock
        self._pod = f"/api/v1/namespaces/{chosen.namespace}/pods/{pod}" if pod else ""
        self._certificate = certificate
        self.ending = ""
        """What is wrong with the certificate."""
        self.access: Sequence[str] = ()
        """What the control plane needs and may not do, such as `watch pods`."""
        self.definitions: Sequence[str] = ()
        """Which definitions are not those of this version, and how."""
        self.leader: str | None = None
        """Who leads and is of another version, with that; empty if it is of this one; None while nobody leads."""

    async def run(self) -> None:
        """Look until cancelled."""
        failures = 0
        while True:
            try:
                await self.look()
                failures = 0
            except (ApiError, Unavailable) as error:
                failures += 1
                log.warning("what the control plane may do is not known", reason=str(error))
            missing = self.access or self.definitions or self.ending or self.leader != ""
            await self._clock.sleep(_RETRY.delay(failures) if failures else _LOOK_AGAIN if missing else _LOOK)

    async def look(self) -> None:
        """Looks now."""
        await self._look_at_certificate()
        await self._look_at_leader()
        lacking, differing = await self._missing_access(), await self._differing()
        self._client.metrics.missing_access.set(len(lacking))
        self._client.metrics.differing_definitions.set(len(differing))
        if lacking and lacking != self.access:
            text = "the ServiceAccount of the control plane may not do all that it needs"
            remedy = "apply what `kumactl install control-plane` of this version prints"
            await self._tell("AccessMissing", text, lacking, remedy)
        if differing and differing != self.definitions:
            text = "the definitions of kinds are not those of this version"
            await self._tell(
                "DefinitionsDiffer", text, differing, "kumactl install crds | kubectl apply --server-side -f -"
            )
        if (self.access or self.definitions) and not (lacking or differing):
            log.info("the cluster is as the control plane needs it, now")
        self.access, self.definitions = lacking, differing

    async def _tell(self, event: str, text: str, found: Sequence[str], remedy: str) -> None:
        log.error(text, missing=list(found), remedy=remedy)
        await self._event(event, f"{text}: {', '.join(found)}. {remedy}")

    async def _look_at_certificate(self) -> None:
        """Tells by an event of a certificate that ends; who shows it logs it."""
        ending = self._certificate().told(self._clock.now())
        if ending and ending != self.ending:
            await self._event(
                "CertificateEnds", f"{ending}. While it has ended the API server asks no webhook. {_RENEW}"
            )
        self.ending = ending

    async def _look_at_leader(self) -> None:
        """Tells of a leader of another version: it does what its version can, as long as it leads."""
        identity, version = leadership.leader(await self._client.find(leadership.path(self._chosen.namespace)))
        other = f"{identity} (version {version})" if version not in ("", kuma.__version__) else ""
        self._client.metrics.leader_differs.set(bool(other))
        if other and other != self.leader:
            text = "the control plane that leads is of another version"
            log.warning(text, leader=identity, version=version, own_version=kuma.__version__, remedy=_FINISH)
            await self._event(
                "LeaderOfAnotherVersion", f"{text}: {other}, and this one is {kuma.__version__}. {_FINISH}"
            )
        elif self.leader and identity and not other:
            log.info("the control plane that leads is of this version, now", leader=identity)
        self.leader = other if identity else None

    async def _event(self, event: str, message: str) -> None:
        if not self._pod:
            return
        try:
            pod = await self._client.get(self._pod)
        except (ApiError, Unavailable) as error:  # it may be just this that we may not do
            log.warning("an event was not told", event_reason=event, reason=str(error))
            return
        await events.tell(self._client, pod, _SOURCE, "Warning", event, message)

    async def _missing_access(self) -> Sequence[str]:
        """Returns what the roles that are installed with this version grant, and those of the cluster do not."""
        roles = [one for one in access.manifests(self._chosen) if one["kind"] in _SEEN_FROM]
        found: list[str] = []
        for role in roles:
            namespace = self._chosen.namespace if _SEEN_FROM[role["kind"]] else _ELSEWHERE
            granted = await self._granted(namespace)
            found += fitness.missing_access(role["rules"], granted) if granted is not None else ()
        return found

    async def _granted(self, namespace: str) -> Sequence[fitness.Rule] | None:
        """Returns what we may do in a namespace; None if the API server cannot tell all of it."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
        status = (await self._client.create(_REVIEWS, {**body, "spec": {"namespace": namespace}}))["status"]
        granted: list[dict[str, Any]] = status.get("resourceRules") or []
        return None if status.get("incomplete") else granted

    async def _differing(self) -> Sequence[str]:
        wanted = manifests.crds(self._chosen)
        found = {
            one["metadata"]["name"]: await self._client.find(f"{_DEFINITIONS}/{one['metadata']['name']}")
            for one in wanted
        }
        return fitness.differing(wanted, found)


_SEEN_FROM = {"ClusterRole": False, "Role": True}
"""Roles, and whether they hold in the system's namespace only."""
