"""Draws the authorities of a mesh on a time line. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from kuma.pki.authority import AuthorityUnusable
from kuma.pki.pem import read_chain
from kuma.resources.view import MeshView

_SOON = timedelta(days=30)
WIDTH, ROW = 1000, 34


class Authority(NamedTuple):
    """One authority, or a root that is trusted: what it is to the mesh, from when and until when."""

    name: str
    role: str
    begins: datetime
    ends: datetime | None
    problem: str = ""
    is_near_end: bool = False


class Bar(NamedTuple):
    """An authority on the line, in units of the drawing."""

    authority: Authority
    x: int
    width: int
    y: int


class Timeline(NamedTuple):
    """The drawing: its bars, where now is, and the years below it."""

    bars: Sequence[Bar]
    now: int
    height: int
    ticks: Sequence[tuple[int, str]]


def authorities(view: MeshView, now: datetime) -> tuple[Authority, ...]:
    """Returns the authorities that a mesh lists, and the roots that it trusts besides."""
    roots = list(_roots(view))
    begins = {root.not_valid_after_utc: root.not_valid_before_utc for root in roots}
    listed = view.transition.spec.backends if view.transition else ()
    enabled = view.enabled_backend.name if view.enabled_backend else ""
    found = [
        Authority(
            one.name,
            "issues" if one.name == enabled else "trusted",
            begins.get(one.not_after, now) if one.not_after else now,
            one.not_after,
            one.problem or ("its root should have been renewed" if one.renewal_overdue else ""),
            one.not_after is not None and one.not_after - now < _SOON,
        )
        for one in listed
    ]
    known = {one.ends for one in found}
    for root in roots:
        ends = root.not_valid_after_utc
        if ends not in known:
            found.append(Authority(_name(root), "root", root.not_valid_before_utc, ends, "", ends - now < _SOON))
    return tuple(found)


def timeline(shown: Sequence[Authority], now: datetime) -> Timeline | None:
    """Places authorities on a line from the first beginning to the last end; None if there is nothing to place."""
    dated = [(one, one.ends) for one in shown if one.ends is not None]
    if not dated:
        return None
    start = min(now, *(one.begins for one, _ in dated))
    end = max(now, *(ends for _, ends in dated))
    span = max((end - start).total_seconds(), 1.0)

    def at(time: datetime) -> int:
        return round(WIDTH * (time - start).total_seconds() / span)

    bars = tuple(
        Bar(one, at(one.begins), max(4, at(ends) - at(one.begins)), index * ROW)
        for index, (one, ends) in enumerate(dated)
    )
    return Timeline(bars, at(now), len(bars) * ROW, tuple(_ticks(start, end, at(start), WIDTH)))


def _ticks(start: datetime, end: datetime, first: int, last: int) -> Iterable[tuple[int, str]]:
    fine = "%Y-%m-%d" if end - start > timedelta(days=3) else "%Y-%m-%d %H:%M"
    return (first, start.strftime(fine)), (last, end.strftime(fine))


def _roots(view: MeshView) -> Iterator[x509.Certificate]:
    for pem in view.position.roots:
        try:
            yield from read_chain(pem.encode())
        except AuthorityUnusable:
            continue  # it is told where it is used


def _name(root: x509.Certificate) -> str:
    return root.subject.rfc4514_string() or f"serial {root.serial_number:x}"
