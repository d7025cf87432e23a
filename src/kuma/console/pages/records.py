"""Certificates in use, the audit record, and the control planes that are there."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from kuma.api import instances
from kuma.api.context import Certificate
from kuma.api.http import access_control
from kuma.console import record, rendering
from kuma.console.context import ConsoleContext
from kuma.console.live import Live
from kuma.console.pages.reading import number
from kuma.console.views import audit, lists
from kuma.resources.kinds import DATAPLANE


class Records:
    """Shows what is on record."""

    def __init__(self, context: ConsoleContext, live: Live) -> None:
        self._context = context
        self._live = live

    async def certificates(self, request: Request) -> Response:
        """Shows the certificates of connected proxies."""
        self._context.api.check(request, DATAPLANE)
        asked, position = request.query_params.get("q", "")[:200], self._live.position()
        used = await self._context.api.connected.certificates()
        found = await self._context.api.costly.do(_found, used, asked.lower().split())
        page = lists.page(found, number(request.query_params.get("page", "1")))
        values = {"found": page, "q": asked, "live": position}
        return rendering.page(request, self._context, "certificates.html", values)

    async def audit(self, request: Request) -> Response:
        """Shows the audit record to administrators."""
        api = self._context.api
        access_control.check_grant(api.caller(request), api.settings.access.admin_resources, "the audit record")
        asked = request.query_params.get("q", "")[:200]
        own = await self._context.api.costly.do(record.own_events, self._context.record.path, asked)
        others = record.with_other_records(api.instances(), api.instance)
        elsewhere = await self._context.record.of_others(asked, others)
        events = audit.merged([one._replace(instance=api.instance) for one in own], elsewhere.events, record.MOST)
        page = lists.page(events, number(request.query_params.get("page", "1")))
        values = {"found": page, "q": asked, "most": record.MOST, "several": bool(others), "missing": elsewhere.missing}
        return rendering.page(request, self._context, "audit.html", values)

    async def instances(self, request: Request) -> Response:
        """Shows the control planes over this store."""
        self._context.api.check(request, DATAPLANE)
        values = {"instances": instances.all_shown(self._context.api)}
        return rendering.page(request, self._context, "instances.html", values)


def _found(used: Sequence[Certificate], words: list[str]) -> list[Certificate]:
    return sorted((one for one in used if _has(one, words)), key=lambda one: (one.not_after, one.dataplane))


def _has(certificate: Certificate, words: list[str]) -> bool:
    text = " ".join(
        (certificate.mesh, certificate.dataplane, certificate.serial, certificate.authority, *certificate.spiffe_ids)
    ).lower()
    return all(word in text for word in words)
