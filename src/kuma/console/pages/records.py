"""Certificates in use, the audit record, and the control planes that are there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from kuma.api import instances
from kuma.api.context import Certificate
from kuma.api.http import access_control
from kuma.console import rendering
from kuma.console.context import ConsoleContext
from kuma.console.live import Live
from kuma.console.pages.reading import number
from kuma.console.views import audit, lists
from kuma.resources.kinds import DATAPLANE

_BLOCK = 1 << 16
_LOOKED_AT = 32 << 20
"""Bytes of the audit record, from its end, that are searched: more would keep a page waiting."""
_MOST = 1000
LONGEST = 1 << 16
"""Bytes of a line that is shown."""


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
        events = await self._context.api.costly.do(_events, self._context.audit_file, asked)
        page = lists.page(events, number(request.query_params.get("page", "1")))
        others = sorted(one.name for one in api.instances() if one.name != api.instance)
        values = {"found": page, "q": asked, "most": _MOST, "instance": api.instance, "others": others}
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


def _events(path: Path, asked: str) -> list[audit.Event]:
    return list(itertools.islice(audit.events(backwards(path), asked, LONGEST), _MOST))


def backwards(path: Path) -> Iterator[bytes | None]:
    """Yields the lines of a file from the last one on, as far as `_LOOKED_AT`; None for one that is too long."""
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        end = file.seek(0, os.SEEK_END)
        start, rest = max(0, end - _LOOKED_AT), b""
        is_too_long = False
        while end > start:
            begin = max(start, end - _BLOCK)
            file.seek(begin)
            *before, last = file.read(end - begin).split(b"\n")
            end = begin
            # Of a line that is too long nothing is kept: every block of it would be copied with all that follow.
            is_too_long = is_too_long or len(last) + len(rest) > LONGEST
            rest = b"" if is_too_long else last + rest
            if before:
                yield from (None,) if is_too_long else (rest,) if rest else ()
                yield from reversed([line for line in before[1:] if line])
                rest, is_too_long = before[0], False
        if start == 0:
            yield from (None,) if is_too_long else (rest,) if rest else ()
