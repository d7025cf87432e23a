"""LastContact: what a proxy may go on doing whose stream has ended without a farewell."""

from __future__ import annotations

from datetime import datetime

from kuma.resources.resource import Model


class LastContact(Model):
    """A proxy that is out of contact, as it was when it was heard of last.

    `may_serve_until` is when its certificate ends. `admits` is whom its inbounds admit by what it has acknowledged
    last; empty if that is not known. `unanswered` is what it was sent and did not answer, by type.
    """

    since: datetime
    may_serve_until: datetime
    admits: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
