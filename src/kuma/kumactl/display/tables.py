"""Tables as people read them, in the original's formats. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from kuma.kumactl.display import mesh_tables
from kuma.kumactl.display.layout import WHOLE, Layout, Narrow, Row, table
from kuma.kumactl.display.times import ago, date, ends, instant, original_date


def tags(networking: Mapping[str, Any]) -> str:
    """Formats all tags of a Dataplane: `kuma.io/service=api version=v1,v2`."""
    found: dict[str, set[str]] = {}
    for tagged in (*networking.get("inbound", ()), networking.get("gateway", {})):
        for name, value in tagged.get("tags", {}).items():
            found.setdefault(name, set()).add(value)
    return " ".join(sorted(f"{name}={','.join(sorted(values))}" for name, values in found.items()))


def resources(
    kind: str, in_mesh: bool, items: Iterable[Mapping[str, Any]], now: datetime, layout: Layout = WHOLE
) -> str:
    """`kumactl get` for any kind; the whole tables have the original's columns, which scripts count."""
    if kind == "Mesh":
        off = ("off",) * 5
        headers: Row = ("NAME", "mTLS", "METRICS", "LOGGING", "TRACING", "LOCALITY", "ZONEEGRESS", "AGE")
        if layout.is_narrow:  # without what nobody can switch on here
            return table(
                ("NAME", "mTLS", "MODE", "AGE"),
                [(i["name"], mesh_tables.mtls(i), mesh_tables.mode(i), age(i, now)) for i in items],
                layout,
            )
        return table(headers, [(i["name"], mesh_tables.mtls(i), *off, age(i, now)) for i in items])
    if kind == "Dataplane":
        return table(("MESH", "NAME", "TAGS", "ADDRESS", "AGE"), [_dataplane(item, now) for item in items], layout)
    if in_mesh:
        return table(("MESH", "NAME", "AGE"), [(i["mesh"], i["name"], age(i, now)) for i in items], layout)
    return table(("NAME", "AGE"), [(i["name"], age(i, now)) for i in items], layout)


def age(item: Mapping[str, Any], now: datetime) -> str:
    """Formats the time since a resource was written last."""
    return ago(item.get("modificationTime"), now)


def _dataplane(item: Mapping[str, Any], now: datetime) -> Row:
    networking = item.get("networking", {})
    address = networking.get("advertisedAddress") or networking.get("address", "")
    return item["mesh"], item["name"], tags(networking), address, age(item, now)


OVERVIEW = (
    "MESH", "NAME", "TAGS", "STATUS", "LAST CONNECTED AGO", "LAST UPDATED AGO", "TOTAL UPDATES", "TOTAL ERRORS",
    "CERT REGENERATED AGO", "CERT EXPIRATION", "CERT REGENERATIONS", "CERT BACKEND", "SUPPORTED CERT BACKENDS",
    "KUMA-DP VERSION", "ENVOY VERSION", "DEPENDENCIES VERSIONS", "NOTES",
)  # fmt: skip


_OVERVIEW = Narrow(
    {
        "NAME": "NAME", "TAGS": "SERVICE", "STATUS": "STATUS", "LAST UPDATED AGO": "UPDATED", "TOTAL ERRORS": "ERRORS",
        "CERT EXPIRATION": "CERT ENDS", "CERT BACKEND": "CA",
    },
    below=("NOTES",),
)  # fmt: skip


def overviews(items: Iterable[Mapping[str, Any]], now: datetime, layout: Layout = WHOLE) -> str:
    """`kumactl inspect dataplanes`."""
    return table(OVERVIEW, [_overview(item, now, layout) for item in items], layout, _OVERVIEW)


def _overview(item: Mapping[str, Any], now: datetime, layout: Layout) -> Row:
    networking = item.get("dataplane", {}).get("networking", {})
    insight = item.get("dataplaneInsight", {})
    subscriptions = insight.get("subscriptions", ())
    last = subscriptions[-1] if subscriptions else {}
    status, notes = status_of(networking, subscriptions)
    certificate = insight.get("mTLS")
    shown = certificate or {}
    expiration = shown.get("certificateExpirationTime")
    versions = last.get("version", {})
    dependencies = ", ".join(f"{name}: {v}" for name, v in sorted(versions.get("dependencies", {}).items()))
    return (
        item.get("mesh", ""),
        item.get("name", ""),
        _service(networking) if layout.is_narrow else tags(networking),
        status,
        ago(last.get("connectTime"), now),
        ago(last.get("status", {}).get("lastUpdateTime"), now),
        str(_total(subscriptions, "responsesSent")),
        str(_total(subscriptions, "responsesRejected")),
        ago(shown.get("lastCertificateRegeneration"), now),
        ends(expiration, now) if layout.is_narrow else original_date(expiration),
        str(shown.get("certificateRegenerations", 0)),
        "-" if certificate is None else shown.get("issuedBackend", ""),
        ",".join(shown.get("supportedBackends", ())),
        versions.get("kumaDp", {}).get("version", ""),
        versions.get("envoy", {}).get("version", ""),
        dependencies or "-",
        ";".join((*notes, *_rejections(last), *_withheld(insight), *_token(insight, now))),
    )


def _service(networking: Mapping[str, Any]) -> str:
    """Returns what a Dataplane is, shortly: its services, and the tags that are not the mesh's own."""
    words = tags(networking).split()
    services = [word.partition("=")[2] for word in words if word.startswith("kuma.io/service=")]
    return " ".join((*services, *(word for word in words if not word.startswith("kuma.io/"))))


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
    if token and instant(token["expirationTime"]) <= now:
        yield f"token expired {date(token['expirationTime'])}: no new certificate until kuma-dp's file has a new one"
    elif token and instant(token["warningTime"]) <= now:
        yield f"token ends {date(token['expirationTime'])}: put a new one into kuma-dp's file"


CERTIFICATES = ("MESH", "NAME", "SPIFFE IDS", "SERIAL", "BACKEND", "NOT BEFORE", "EXPIRATION", "REASON")


_CERTIFICATES = Narrow(
    {"NAME": "NAME", "SPIFFE IDS": "SPIFFE IDS", "BACKEND": "CA", "EXPIRATION": "EXPIRATION", "REASON": "REASON"}
)


def certificates(items: Iterable[Mapping[str, Any]], layout: Layout = WHOLE) -> str:
    """`kumactl get certificates`."""
    return table(
        CERTIFICATES,
        [
            (i["mesh"], i["name"], ",".join(i["spiffeIds"]), i["serial"], i["backend"], date(i["notBefore"]),
             date(i["notAfter"]), i["reason"])
            for i in items
        ],
        layout,
        _CERTIFICATES,
    )  # fmt: skip


_CLOCK = 1.0
"""Seconds by which clocks have to differ to be told; what a word takes to arrive is less."""


def control_planes(items: Iterable[Mapping[str, Any]], now: datetime, layout: Layout = WHOLE) -> str:
    """`kumactl inspect control-planes`."""
    return table(
        ("NAME", "ADDRESS", "SINCE", "PROXIES", "LEADER", "CLOCK", "VERSION"),
        [
            (
                i["name"],
                i["address"],
                ago(i["since"], now),
                str(i["proxies"]),
                "yes" if i["leader"] else "-",
                f"{i['clockDifferenceSeconds']:+.0f}s" if abs(i["clockDifferenceSeconds"]) >= _CLOCK else "-",
                i["version"],
            )
            for i in items
        ],
        layout,
    )


def services(items: Iterable[Mapping[str, Any]], layout: Layout = WHOLE) -> str:
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
        layout,
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


TRAFFIC = (
    "SERVICE", "DATAPLANE", "PORT", "CALLER", "HOW", "OUTCOME", "LAST SEEN AGO", "CONNECTIONS", "LAST DAY", "NOTES",
)  # fmt: skip
HOW = {"meshTls": "mesh TLS", "foreignTls": "own TLS", "plaintext": "plaintext"}
_OUTCOMES = {"wouldBeRefused": "would be refused"}


_TRAFFIC = Narrow(
    {
        "SERVICE": "SERVICE", "CALLER": "CALLER", "HOW": "HOW", "OUTCOME": "OUTCOME", "LAST SEEN AGO": "SEEN AGO",
        "LAST DAY": "LAST DAY",
    },
    below=("NOTES",),
)  # fmt: skip


def traffic(items: Iterable[Mapping[str, Any]], now: datetime, layout: Layout = WHOLE) -> str:
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
        layout,
        _TRAFFIC,
    )


def _at_its_address(item: Mapping[str, Any]) -> str:
    names = item.get("knownAs", ())
    return f"from the address of {', '.join(names)}" if names else ""
