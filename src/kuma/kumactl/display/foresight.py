"""What is judged of a mesh, and what a change would do, as people read it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from kuma.base.values.printable import printable
from kuma.base.values.quantities import counted
from kuma.kumactl.display import tables, times
from kuma.kumactl.display.layout import WHOLE, Layout, Narrow, table

_EFFECTS = {
    "refused": "would be REFUSED",
    "admitted": "would be let in",
    "wouldBeRefused": "would be counted as refused",
}


_CALLERS = ("CALLER", "SERVICE", "PORT", "HOW", "EFFECT", "LAST SEEN AGO", "CONNECTIONS", "WHY")
_NARROW_CALLERS = Narrow(
    {"CALLER": "CALLER", "SERVICE": "SERVICE", "HOW": "HOW", "EFFECT": "EFFECT", "LAST SEEN AGO": "SEEN AGO"},
    below=("WHY",),
)


def preview(found: Mapping[str, Any], now: datetime, layout: Layout = WHOLE) -> str:
    """`kumactl preview`."""
    if not found["items"]:
        return "The change is of no mesh: nobody is refused or let in by it."
    return "\n\n".join("\n".join(_mesh(item, now, layout)) for item in found["items"])


def _mesh(item: Mapping[str, Any], now: datetime, layout: Layout) -> Iterator[str]:
    yield f'Mesh "{item["mesh"]}": {_verdict(item)}'
    strict = item.get("strict")
    if strict:
        yield f"Can it go STRICT? {strict['answer'].upper()}"
        yield from (f"  - {printable(missing)}" for missing in strict["missing"])
        if strict.get("reservation"):
            yield f"  But {printable(strict['reservation'])}"
    elif item["unobservedTotal"]:
        names, who = ", ".join(item["unobserved"]), counted(item["unobservedTotal"], "Dataplane")
        yield f"Not known: who calls {who} without reports: {printable(names)}"
    if item.get("withinSeconds"):
        yield f"Who has not called for {times.duration(item['withinSeconds'])} is taken for gone."
    if item["callers"]:
        yield ""
        yield table(_CALLERS, [_caller(caller, now) for caller in item["callers"]], layout, _NARROW_CALLERS)
    for title, lines in (
        ("Proxies that cannot follow:", [f"{one['dataplane']} {one['reason']}" for one in item["laggards"]]),
        ("Ends before it can be complete:", [f"{one['of']}: {times.date(one['ends'])}" for one in item["endings"]]),
        ("Steps:", [_step(one) for one in item["steps"]]),
    ):
        if lines:
            yield ""
            yield title
            yield from (f"  {printable(line)}" for line in lines)


def _verdict(item: Mapping[str, Any]) -> str:
    counts = [
        f"{counted(item[field], 'caller')} would be {text}"
        for field, text in (
            ("refused", "refused"),
            ("admitted", "let in"),
            ("declaredOnly", "refused by an outbound that was not seen to be used"),
        )
        if item[field]
    ]
    return "; ".join(counts) or "nobody who was seen would be refused or let in"


def _caller(caller: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    names = ", ".join(caller["dataplanes"])
    return (
        f"{caller['caller']} ({names})" if names else caller["caller"],
        caller["service"],
        str(caller["port"]),
        tables.HOW.get(caller["how"], caller["how"]),
        _EFFECTS.get(caller["effect"], caller["effect"]),
        times.ago(caller["last"], now),
        str(caller["connections"]),
        caller["why"],
    )


def _step(step: Mapping[str, Any]) -> str:
    likely, most = step["likelySeconds"], step["atMostSeconds"]
    return f"{step['step']} (about {likely:.0f} s, at most {most:.0f} s for each proxy that does not answer)"


_VERDICTS = {"allowed": "ALLOWED", "refused": "REFUSED", "wouldBeRefused": "ALLOWED, would be refused"}
_MARKS = {"ok": "ok", "warning": "WARNING", "failure": "FAILURE"}


_FINDINGS = ("MESH", "CHECK", "STATUS", "FOUND", "REMEDY")


def findings(items: Iterable[Mapping[str, Any]], layout: Layout = WHOLE) -> str:
    """`kumactl check`. On a terminal what is not well is told in full below the table."""
    rows = [
        (
            item["mesh"] or "-",
            item["check"],
            _MARKS.get(item["status"], item["status"]),
            item["found"],
            item["remedy"] or "-",
        )
        for item in items
    ]
    if not layout.is_narrow:
        return table(_FINDINGS, rows)
    whole = [(*row, "-" if row[2] == _MARKS["ok"] else f"{row[1]}: {row[3]}. {row[4]}") for row in rows]
    columns = {name: name for name in ("MESH", "CHECK", "STATUS", "FOUND")}
    return table((*_FINDINGS, "TO DO"), whole, layout, Narrow(columns, below=("TO DO",)))


def explanations(items: Iterable[Mapping[str, Any]]) -> str:
    """`kumactl explain call`."""
    return "\n\n".join("\n".join(map(printable, _explanation(item))) for item in items)


def _explanation(item: Mapping[str, Any]) -> Iterator[str]:
    verdict = _VERDICTS.get(item["verdict"], item["verdict"])
    yield f"{item['caller']} -> {item['service']} ({item['dataplane']}): {verdict}"
    yield f"  because:  {item['why']}"
    if item.get("doubt"):
        yield f"  note:     {item['doubt']}"
    for rule in item["rules"]:
        yield f"  rule:     {rule['type']} {rule['name']}: {rule['action']}"
    yield f"  shows:    {', '.join(item['shows']) or 'nothing'}"
    if item["certificateExpires"]:
        yield f"  holds:    until {times.date(item['certificateExpires'])}, issued by {item['issuedBy']}"
    yield f"  listener: {item['listener']}, mode {item['mode']}"
