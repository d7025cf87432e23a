"""Tables as people read them, in the original's formats. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from kuma.base.values import printable

Row = Sequence[str]
_GAP = 3
_STEPS = ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h"), (365 * 86400, 86400, "d"))


def table(headers: Row, rows: Iterable[Row]) -> str:
    """Left-aligned columns, three spaces apart; nothing is added after the last one. No cell leaves its line."""
    lines = [headers, *([printable.printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) + _GAP for column in range(len(headers))]
    return "\n".join(
        "".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)), line[-1]])
        for line in lines
    )


def duration(seconds: float) -> str:
    """Formats a duration in its greatest unit; `never` for a negative one."""
    whole = int(seconds)
    if whole < -1:
        return "never"
    for limit, unit, letter in _STEPS:
        if whole < limit:
            return f"{max(whole, 0) // unit}{letter}"
    return f"{whole // (365 * 86400)}y"


def ago(time: str | None, now: datetime) -> str:
    """Formats the time since an instant; `never` if there is none."""
    return duration((now - _time(time)).total_seconds()) if time else "never"


def date(time: str | None) -> str:
    """A time in the local time zone; `-` if there is none."""
    return _time(time).astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def tags(networking: Mapping[str, Any]) -> str:
    """Formats all tags of a Dataplane: `kuma.io/service=api version=v1,v2`."""
    found: dict[str, set[str]] = {}
    for tagged in (*networking.get("inbound", ()), networking.get("gateway", {})):
        for name, value in tagged.get("tags", {}).items():
            found.setdefault(name, set()).add(value)
    return " ".join(sorted(f"{name}={','.join(sorted(values))}" for name, values in found.items()))


def resources(
    kind: str, in_mesh: bool, items: Iterable[Mapping[str, Any]], now: datetime, *, for_people: bool = False
) -> str:
    """`kumactl get` for any kind; what is not `for_people` has the original's columns, which scripts count."""
    if kind == "Mesh":
        off = ("off",) * 5
        headers: Row = ("NAME", "mTLS", "METRICS", "LOGGING", "TRACING", "LOCALITY", "ZONEEGRESS", "AGE")
        if for_people:
            rows = [(i["name"], mtls(i), mode(i), *off, age(i, now)) for i in items]
            return table((*headers[:2], "MODE", *headers[2:]), rows)
        return table(headers, [(i["name"], mtls(i), *off, age(i, now)) for i in items])
    if kind == "Dataplane":
        return table(("MESH", "NAME", "TAGS", "ADDRESS", "AGE"), [_dataplane(item, now) for item in items])
    if in_mesh:
        return table(("MESH", "NAME", "AGE"), [(i["mesh"], i["name"], age(i, now)) for i in items])
    return table(("NAME", "AGE"), [(i["name"], age(i, now)) for i in items])


def age(item: Mapping[str, Any], now: datetime) -> str:
    """Formats the time since a resource was written last."""
    return ago(item.get("modificationTime"), now)


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


def _dataplane(item: Mapping[str, Any], now: datetime) -> Row:
    networking = item.get("networking", {})
    address = networking.get("advertisedAddress") or networking.get("address", "")
    return item["mesh"], item["name"], tags(networking), address, age(item, now)


OVERVIEW = (
    "MESH", "NAME", "TAGS", "STATUS", "LAST CONNECTED AGO", "LAST UPDATED AGO", "TOTAL UPDATES", "TOTAL ERRORS",
    "CERT REGENERATED AGO", "CERT EXPIRATION", "CERT REGENERATIONS", "CERT BACKEND", "SUPPORTED CERT BACKENDS",
    "KUMA-DP VERSION", "ENVOY VERSION", "DEPENDENCIES VERSIONS", "NOTES",
)  # fmt: skip


def overviews(items: Iterable[Mapping[str, Any]], now: datetime) -> str:
    """`kumactl inspect dataplanes`."""
    return table(OVERVIEW, [_overview(item, now) for item in items])


def _overview(item: Mapping[str, Any], now: datetime) -> Row:
    networking = item.get("dataplane", {}).get("networking", {})
    insight = item.get("dataplaneInsight", {})
    subscriptions = insight.get("subscriptions", ())
    last = subscriptions[-1] if subscriptions else {}
    status, notes = status_of(networking, subscriptions)
    certificate = insight.get("mTLS")
    shown = certificate or {}
    versions = last.get("version", {})
    dependencies = ", ".join(f"{name}: {v}" for name, v in sorted(versions.get("dependencies", {}).items()))
    return (
        item.get("mesh", ""),
        item.get("name", ""),
        tags(networking),
        status,
        ago(last.get("connectTime"), now),
        ago(last.get("status", {}).get("lastUpdateTime"), now),
        str(_total(subscriptions, "responsesSent")),
        str(_total(subscriptions, "responsesRejected")),
        ago(shown.get("lastCertificateRegeneration"), now),
        date(shown.get("certificateExpirationTime")),
        str(shown.get("certificateRegenerations", 0)),
        "-" if certificate is None else shown.get("issuedBackend", ""),
        ",".join(shown.get("supportedBackends", ())),
        versions.get("kumaDp", {}).get("version", ""),
        versions.get("envoy", {}).get("version", ""),
        dependencies or "-",
        ";".join((*notes, *_rejections(last), *_withheld(insight), *_token(insight, now))),
    )


def _total(subscriptions: Iterable[Mapping[str, Any]], counter: str) -> int:
    return sum(int(s.get("status", {}).get("total", {}).get(counter, 0)) for s in subscriptions)


def status_of(networking: Mapping[str, Any], subscriptions: Iterable[Mapping[str, Any]]) -> tuple[str, Sequence[str]]:
    """`Online`, `Offline` or `Partially degraded`, and which inbounds are not ready."""
    inbounds = networking.get("inbound", ())
    notes = tuple(_not_ready(inbounds))
    online = any(s.get("connectTime") and not s.get("disconnectTime") for s in subscriptions)
    if online and "gateway" in networking:
        return "Online", ()
    if not online or len(notes) == len(inbounds):
        return "Offline", notes
    return ("Partially degraded" if notes else "Online"), notes


def _not_ready(inbounds: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for inbound in inbounds:
        unhealthy = "health" in inbound and not inbound["health"].get("ready")
        if unhealthy or inbound.get("state") == "NotReady":
            service = inbound.get("tags", {}).get("kuma.io/service", "")
            yield f"inbound[port={inbound.get('port')},svc={service}] is not ready"


def _rejections(subscription: Mapping[str, Any]) -> Iterator[str]:
    """Formats the rejections of a proxy with Envoy's reasons; an addition to the original's output."""
    for bucket, found in subscription.get("status", {}).items():
        reason = found.get("lastRejection") if isinstance(found, Mapping) else ""
        if reason and not subscription.get("disconnectTime"):
            yield f"rejected {bucket}: {' '.join(reason.split())}"


def _withheld(insight: Mapping[str, Any]) -> Iterator[str]:
    """Formats the inbounds that are not served and the names that are not resolved; an addition of ours."""
    for reason in insight.get("withheldInbounds", ()):
        yield f"not served: {reason}"
    for reason in insight.get("unresolvedNames", ()):
        yield f"host name {reason}"


def _token(insight: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """Formats the end of the proxy's token once it is near; an addition to the original's output."""
    token = insight.get("token")
    if token and _time(token["expirationTime"]) <= now:
        yield f"token expired {date(token['expirationTime'])}: no new certificate until kuma-dp's file has a new one"
    elif token and _time(token["warningTime"]) <= now:
        yield f"token ends {date(token['expirationTime'])}: put a new one into kuma-dp's file"


CERTIFICATES = ("MESH", "NAME", "SPIFFE IDS", "SERIAL", "BACKEND", "NOT BEFORE", "EXPIRATION", "REASON")


def certificates(items: Iterable[Mapping[str, Any]]) -> str:
    """`kumactl get certificates`."""
    return table(
        CERTIFICATES,
        [
            (i["mesh"], i["name"], ",".join(i["spiffeIds"]), i["serial"], i["backend"], date(i["notBefore"]),
             date(i["notAfter"]), i["reason"])
            for i in items
        ],
    )  # fmt: skip


def services(items: Iterable[Mapping[str, Any]]) -> str:
    """`kumactl inspect services`."""
    names = {"online": "Online", "partially_degraded": "Partially degraded"}
    return table(
        ("SERVICE", "STATUS", "DATAPLANES"),
        [
            (
                i["name"],
                names.get(i["status"], "Offline"),
                f"{i['dataplanes'].get('online', 0)}/{i['dataplanes'].get('total', 0)}",
            )
            for i in items
        ],
    )


def policies(items: Iterable[Mapping[str, Any]]) -> str:
    """`kumactl inspect dataplane`: what acts on it, by what it is attached to."""
    blocks = []
    for item in items:
        head = (
            "DATAPLANE:"
            if item["type"] == "dataplane"
            else f"{item['type'].upper()} {item['name']}({item['service']}):"
        )
        lines = [
            line
            for kind, found in sorted(item["matchedPolicies"].items())
            for line in (f"  {kind}", *(f"    {policy['name']}" for policy in found))
        ]
        blocks.append("\n".join([head, *lines]))
    return "\n\n".join(blocks) or "No permission acts on it; with mutual TLS its inbounds admit nobody."


def affected(items: Iterable[Mapping[str, Any]]) -> str:
    """`kumactl inspect traffic-permission`: on whom it acts."""
    lines = ["Affected data plane proxies:", ""]
    for item in items:
        attachments = [a for a in item["attachments"] if a["type"] != "dataplane"]
        lines.append(f"  {item['dataplane']['name']}{':' if attachments else ''}")
        lines += [f"    {a['type']} {a['name']}({a['service']})" for a in attachments]
    return "\n".join(lines)


def names(items: Sequence[Mapping[str, Any]]) -> str:
    """`kumactl inspect traffic-permission --new-api`."""
    rows = [(item["type"], item["mesh"], item["name"]) for item in items]
    return f"{table(('Type', 'Mesh', 'Name'), rows)}\nTotal: {len(rows)}"


MESHES = (
    "MESH", "mTLS", "MODE", "PLAINTEXT CALLERS", "STATE", "SINCE", "ACKNOWLEDGED", "WAITING FOR", "UNRESPONSIVE",
    "OUT OF CONTACT", "CA EXPIRATION", "PROBLEMS",
)  # fmt: skip


def meshes(
    items: Iterable[Mapping[str, Any]],
    transitions: Mapping[str, Mapping[str, Any]],
    observed: Mapping[str, Mapping[str, Any]],
    now: datetime,
) -> str:
    """`kumactl inspect meshes`; `transitions` and `observed` have what is known of each mesh, if anything is."""
    return table(
        MESHES,
        [_mesh(item, transitions.get(item["name"], {}), observed.get(item["name"], {}), now) for item in items],
    )


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
        text = f"none for {ago(last, now)}"
    else:
        text = f"none seen in {ago(observed.get('since'), now)}"
    unobserved = observed.get("unobservedTotal", 0)
    return f"{text}; {unobserved} proxies do not report" if unobserved else text


TRAFFIC = (
    "SERVICE", "DATAPLANE", "PORT", "CALLER", "HOW", "OUTCOME", "LAST SEEN AGO", "CONNECTIONS", "LAST DAY", "NOTES",
)  # fmt: skip
HOW = {"meshTls": "mesh TLS", "foreignTls": "own TLS", "plaintext": "plaintext"}
_OUTCOMES = {"wouldBeRefused": "would be refused"}


def traffic(items: Iterable[Mapping[str, Any]], now: datetime) -> str:
    """`kumactl inspect traffic`."""
    return table(
        TRAFFIC,
        [
            (
                i["service"],
                i["dataplane"],
                str(i["port"]),
                i["caller"],
                HOW.get(i["how"], i["how"]),
                _OUTCOMES.get(i["outcome"], i["outcome"]),
                ago(i["last"], now),
                str(i["connections"]),
                str(i["lastDay"]),
                "; ".join(filter(None, [_at_its_address(i), i.get("reason", "")])) or "-",
            )
            for i in items
        ],
    )


def _at_its_address(item: Mapping[str, Any]) -> str:
    names = item.get("knownAs", ())
    return f"from the address of {', '.join(names)}" if names else ""


def _mesh(item: Mapping[str, Any], transition: Mapping[str, Any], observed: Mapping[str, Any], now: datetime) -> Row:
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
        ",".join(f"{b['name']}={date(b.get('notAfter'))}" for b in backends) or "-",
        "; ".join(filter(None, [transition.get("problem", ""), *problems])) or "-",
    )


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
