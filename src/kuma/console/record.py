"""The audit record of all control planes over a store: each keeps its own, and tells the others when they ask.

Questions and answers are sealed under the key that only these control planes share. Who may look was judged where the
question comes from, as for any other page.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, KumaError
from kuma.console import sealing
from kuma.console.sealing import SharedKey
from kuma.console.views import audit
from kuma.console.views.audit import Event
from kuma.coordination.coordination import Instance

MOST = 1000
"""Events that are shown."""
LONGEST = 1 << 16
"""Bytes of a line that is shown."""
_BLOCK = 1 << 16
_LOOKED_AT = 32 << 20
"""Bytes of the audit record, from its end, that are searched: more would keep a page waiting."""
_LARGEST_ANSWER = 2 << 20
"""Characters that another control plane is told: what is more is left out, the oldest first."""
_FRESH = timedelta(minutes=10)
"""How old a question may be, by clocks that may differ: nobody asks again what somebody else has asked once."""
_QUESTION, _ANSWER = b"question about the audit record", b"audit record for "

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""The address of another control plane and what it is asked -> its answer. Raises `KumaError` if there is none."""


class Found(NamedTuple):
    """Events of those that have answered, and why the others have not, by their names."""

    events: Sequence[Event]
    missing: Sequence[tuple[str, str]]


def own_events(path: Path, asked: str) -> list[Event]:
    """Returns the last events in a record that have every word of `asked` in them."""
    return list(itertools.islice(audit.events(backwards(path), asked, LONGEST), MOST))


def with_other_records(instances: Sequence[Instance], own: str) -> Sequence[Instance]:
    """Returns one control plane for each record that is not that of `own`: workers at one address share theirs."""
    here = next((one.spec.address for one in instances if one.name == own), "")
    found = {one.spec.address: one for one in instances if one.name != own and one.spec.address != here}
    return list(found.values())


@dataclass(frozen=True, slots=True)
class SharedRecord:
    """Searches the records of all control planes; `path` is where this one's is."""

    path: Path
    key: SharedKey
    ask: Ask
    clock: Clock
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def of_others(self, asked: str, others: Sequence[Instance]) -> Found:
        """Returns what others have recorded; of those that do not answer, why."""
        told = await asyncio.gather(*(self._told(asked, other) for other in others))
        events = [event for found in told if not isinstance(found, str) for event in found]
        missing = [(other.name, found) for other, found in zip(others, told, strict=True) if isinstance(found, str)]
        return Found(events, missing)

    async def _told(self, asked: str, other: Instance) -> list[Event] | str:
        """Returns what another one has recorded, or why that is not known."""
        try:
            key = await self.key.get()
            content = {"asked": asked, "at": self.clock.now().timestamp()}
            question = sealing.sealed(key, json.dumps(content).encode(), _QUESTION)
            answer = sealing.opened(key, await self.ask(other.spec.address, question), _ANSWER + question)
        except KumaError as error:
            return str(error)
        if answer is None:
            return "it has answered something else than was asked"
        return audit.told(json.loads(answer), other.name)

    async def answer(self, question: bytes) -> bytes:
        """Answers another control plane.

        Raises:
            AccessDenied: whoever asks has not the key that control planes share, or asks again what is long past.
        """
        key = await self.key.find()
        content = sealing.opened(key, question, _QUESTION) if key is not None else None
        if key is None or content is None:
            raise AccessDenied("the question is none of a control plane over the same store")
        asked = json.loads(content)
        if abs(self.clock.now() - datetime.fromtimestamp(asked["at"], UTC)) > _FRESH:
            raise AccessDenied("the question is too old, or the clocks of the two control planes differ by minutes")
        async with self._one_at_a_time:
            found = await asyncio.to_thread(own_events, self.path, asked["asked"])
        return sealing.sealed(key, json.dumps(audit.tellable(found, _LARGEST_ANSWER)).encode(), _ANSWER + question)


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
