"""Tables of meshes: where their mutual TLS stands. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kuma.kumactl.display.layout import WHOLE, Layout, Narrow, Row, table
from kuma.kumactl.display.times import ago, date, ends


def mtls(mesh: Mapping[str, Any]) -> str:
    """The enabled backend of a Mesh, such as `builtin/ca-1`, or `off`."""
    found = mesh.get("mtls", {})
    enabled = found.get("enabledBackend")
    types = {backend["name"]: backend.get("type", "") for backend in found.get("backends", ())}
    return f"{types.get(enabled, '')}/{enabled}" if enabled else "off"


def mode(mesh: Mapping[str, Any]) -> str:
    """`STRICT` or `PERMISSIVE`, as the enabled backend of a Mesh says; `off` without mutual TLS."""
    found = mesh.get("mtls", {})
    enabled = found.get("enabledBackend")
    modes = {backend["name"]: backend.get("mode", "STRICT") for backend in found.get("backends", ())}
    return str(modes.get(enabled, "STRICT")) if enabled else "off"


MESHES = (
    "MESH", "mTLS", "MODE", "PLAINTEXT CALLERS", "STATE", "SINCE", "ACKNOWLEDGED", "WAITING FOR", "UNRESPONSIVE",
    "OUT OF CONTACT", "CA EXPIRATION", "PROBLEMS",
)  # fmt: skip


_MESHES = Narrow(
    {
        "MESH": "MESH", "mTLS": "mTLS", "MODE": "MODE", "STATE": "STATE", "SINCE": "SINCE", "ACKNOWLEDGED": "ACKED",
        "CA EXPIRATION": "CA ENDS",
    },
    below=("PLAINTEXT CALLERS", "WAITING FOR", "UNRESPONSIVE", "OUT OF CONTACT", "PROBLEMS"),
)  # fmt: skip


def meshes(
    items: Iterable[Mapping[str, Any]],
    transitions: Mapping[str, Mapping[str, Any]],
    observed: Mapping[str, Mapping[str, Any]],
    now: datetime,
    layout: Layout = WHOLE,
) -> str:
    """`kumactl inspect meshes`; `transitions` and `observed` have what is known of each mesh, if anything is."""
    rows = [
        _mesh(item, transitions.get(item["name"], {}), observed.get(item["name"], {}), now, layout) for item in items
    ]
    return table(MESHES, rows, layout, _MESHES)


def plaintext_callers(mode: str, observed: Mapping[str, Any], now: datetime) -> str:
    """Formats how many callers were let in without encryption in the last hour, and since when there was none."""
    if mode != "PERMISSIVE":
        return "-"
    if not observed.get("observed"):
        return "not observed"
    found = observed.get("plaintext", {})
    count, last = found.get("callersLastHour", 0), found.get("last")
    if count:
        text = f"{count} in the last hour"
    elif last:
        since = observed.get("since") or last
        text = f"none for {ago(last, now)}" + (f", all observed for {ago(since, now)}" if since > last else "")
    else:
        text = f"none seen in {ago(observed.get('since'), now)}"
    unobserved = observed.get("unobservedTotal", 0)
    return f"{text}; {unobserved} proxies do not report" if unobserved else text


def _mesh(
    item: Mapping[str, Any],
    transition: Mapping[str, Any],
    observed: Mapping[str, Any],
    now: datetime,
    layout: Layout,
) -> Row:
    backends = transition.get("backends", ())
    problems = [f"{b['name']}: {b['problem']}" for b in backends if b.get("problem")]
    return (
        item["name"],
        mtls(item),
        mode(item),
        plaintext_callers(mode(item), observed, now),
        _step(transition) or "off",
        ago(transition.get("since"), now) if transition.get("since") else "-",
        f"{transition.get('acknowledged', 0)}/{transition.get('followers', 0)}",
        _awaited(transition, "waitingFor", now),
        _awaited(transition, "unresponsive", now),
        _out_of_contact(transition, now),
        ",".join(f"{b['name']}{_authority_ends(b.get('notAfter'), now, layout)}" for b in backends) or "-",
        "; ".join(filter(None, [transition.get("problem", ""), *problems])) or "-",
    )


def _authority_ends(time: str | None, now: datetime, layout: Layout) -> str:
    return f" {ends(time, now)}" if layout.is_narrow else f"={date(time)}"


def _step(transition: Mapping[str, Any]) -> str:
    """`complete`, and what may be open yet of what was made under an authority that is retired."""
    open_until = transition.get("openUntil")
    parts = [transition.get("step", ""), f"connections of a retired CA end by {date(open_until)}" if open_until else ""]
    return "; ".join(filter(None, parts))


def _awaited(transition: Mapping[str, Any], field: str, now: datetime) -> str:
    """`web-01 (5s)`, and how many more there are than are named."""
    found = transition.get(field, ())
    names = [
        f"{a['name']} ({ago(a.get('since'), now)}{', not connected' if a.get('absent') else ''})"
        for a in found[:_NAMED]
    ]
    more = len(found) - len(names)
    if field == "waitingFor":
        behind = transition.get("followers", 0) - transition.get("acknowledged", 0)
        more = max(0, behind - len(transition.get("unresponsive", ())) - len(names))
    return ", ".join([*names, *([f"and {more} more"] if more else ())]) or "-"


_NAMED = 5


def _out_of_contact(transition: Mapping[str, Any], now: datetime) -> str:
    """Formats `web-01 (5s, until 2026-02-01 00:00:00, admits web:80: everybody in the mesh)`."""
    found = transition.get("outOfContact", ())
    parts = []
    for proxy in found[:_NAMED]:
        admits = "; ".join(proxy.get("admits", ())) or "not known"
        parts.append(
            f"{proxy['name']} ({ago(proxy['since'], now)}, until {date(proxy['mayServeUntil'])}, admits {admits})"
        )
    more = len(found) - len(parts)
    return ", ".join([*parts, *([f"and {more} more"] if more else ())]) or "-"


_PROXIES = (
    ("waitingFor", "waiting for"),
    ("unresponsive", "no longer waited for"),
    ("outOfContact", "out of contact"),
)


def progress(transition: Mapping[str, Any]) -> str:
    """Formats one line of `kumactl inspect meshes --watch`."""
    parts = [_step(transition)]
    if not transition.get("complete"):
        parts.append(f"{transition.get('acknowledged', 0)} of {transition.get('followers', 0)} proxies")
    for field, text in (
        ("waitingFor", "waiting for"),
        ("unresponsive", "no longer waited for"),
        ("outOfContact", "out of contact"),
    ):
        names = [awaited["name"] for awaited in transition.get(field, ())]
        if names:
            parts.append(f"{text} {', '.join(names[:_NAMED])}{' and more' if len(names) > _NAMED else ''}")
    if transition.get("problem"):
        parts.append(transition["problem"])
    return "; ".join(parts)
