"""Tables in the original's formats."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuma.kumactl.display import mesh_tables, tables, times
from kuma.kumactl.display.layout import Layout, Narrow, table

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def before(**ago: float) -> str:
    return (NOW - timedelta(**ago)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "never"), (-1, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"),
        (86400, "1d"), (364 * 86400, "364d"), (365 * 86400, "1y"),
    ],
)  # fmt: skip
def test_durations_have_one_unit(seconds: int, text: str) -> None:
    assert times.duration(seconds) == text


def test_columns_are_padded_and_the_last_one_is_not() -> None:
    assert table(("A", "LONGER", "C"), [("value", "x", "yy"), ("v", "", "")]).splitlines() == [
        "A       LONGER   C",
        "value   x        yy",
        "v                ",
    ]


def test_a_cell_stays_in_its_line_and_commands_no_terminal() -> None:
    """Proxies say what is in some of them, and not only to control planes that look at it."""
    assert table(("A", "B"), [("\x1b[31mred\x07", "two\nlines\u202e")]).splitlines() == [
        "A           B",
        "?[31mred?   two?lines?",
    ]


def test_a_narrow_table_fits_and_tells_below_what_is_wrong() -> None:
    rows = [("a-name-of-some-length", "x" * 90, "Offline", "it does not answer"), ("b", "y", "Online", "-")]
    narrow = Narrow({"NAME": "NAME", "STATUS": "ST", "TAGS": "TAGS"}, below=("NOTES",))
    lines = table(("NAME", "TAGS", "STATUS", "NOTES"), rows, Layout(60), narrow).splitlines()
    assert lines == [
        "NAME                    ST        TAGS",
        "a-name-of-some-length   Offline   xxxxxxxxxxxxxxxxxxxxxxxxx…",
        "b                       Online    y",
        "",
        "a-name-of-some-length: notes: it does not answer",
    ]
    assert all(len(line) <= 60 for line in lines)
    coloured = table(("NAME", "TAGS", "STATUS", "NOTES"), rows, Layout(60, colours=True), narrow)
    assert "\x1b[31mOffline   \x1b[0m" in coloured
    assert "\x1b[31ma-name-of-some-length: notes" in coloured
    assert "\x1b" not in table(("NAME",), [("\x1b[31m",)], Layout(60, colours=True)), "colours are ours alone"


def test_meshes() -> None:
    mtls = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
    items: list[dict[str, Any]] = [
        {"name": "default", "mtls": mtls, "modificationTime": before(minutes=3)},
        {"name": "plain", "modificationTime": before(days=4)},
    ]
    assert tables.resources("Mesh", False, items, NOW).splitlines() == [
        "NAME      mTLS           METRICS   LOGGING   TRACING   LOCALITY   ZONEEGRESS   AGE",
        "default   builtin/ca-1   off       off       off       off        off          3m",
        "plain     off            off       off       off       off        off          4d",
    ]


@pytest.mark.parametrize(
    ("mtls", "shown"),
    [
        ({"enabledBackend": "b", "backends": [{"name": "a", "type": "builtin", "mode": "PERMISSIVE"},
                                              {"name": "b", "type": "builtin"}]}, "STRICT"),
        ({"enabledBackend": "b", "backends": [{"name": "b", "type": "builtin", "mode": "PERMISSIVE"}]}, "PERMISSIVE"),
        ({"backends": [{"name": "b", "type": "builtin", "mode": "PERMISSIVE"}]}, "off"),
    ],
)  # fmt: skip
def test_the_mode_is_never_invisible_to_people(mtls: dict[str, Any], shown: str) -> None:
    item = {"name": "default", "mtls": mtls, "modificationTime": before(minutes=3)}
    header, line = tables.resources("Mesh", False, [item], NOW, Layout(80)).splitlines()
    assert header.split()[:3] == ["NAME", "mTLS", "MODE"]
    assert line.split()[2] == shown
    header, line = mesh_tables.meshes([item], {}, {}, NOW).splitlines()
    assert header.split()[:3] == ["MESH", "mTLS", "MODE"]
    assert line.split()[2] == shown


def test_secrets() -> None:
    name = "dataplane-token-signing-key-default-1"
    items = [{"mesh": "default", "name": name, "modificationTime": before(minutes=3)}]
    assert tables.resources("Secret", True, items, NOW).splitlines() == [
        "MESH      NAME                                    AGE",
        "default   dataplane-token-signing-key-default-1   3m",
    ]


def test_certificates() -> None:
    item = {
        "mesh": "default", "name": "web-01", "spiffeIds": ["spiffe://default/web", "spiffe://default/api"],
        "serial": "1f", "backend": "ca-1", "notBefore": before(seconds=10), "notAfter": before(days=-30),
        "reason": "rotation",
    }  # fmt: skip
    begins, ends = times.date(before(seconds=10)), times.date(before(days=-30))
    assert tables.certificates([item]).splitlines() == [
        "MESH      NAME     SPIFFE IDS                                  SERIAL   BACKEND   NOT BEFORE                  "
        "EXPIRATION                  REASON",
        "default   web-01   spiffe://default/web,spiffe://default/api   1f       ca-1      "
        f"{begins}   {ends}   rotation",
    ]


def test_dataplanes() -> None:
    networking = {
        "address": "10.0.0.1",
        "advertisedAddress": "192.168.0.1",
        "inbound": [
            {"tags": {"kuma.io/service": "web", "version": "v2"}},
            {"tags": {"kuma.io/service": "api", "version": "v2"}},
        ],
    }
    items = [{"mesh": "m", "name": "d", "networking": networking, "modificationTime": before(seconds=1)}]
    assert tables.resources("Dataplane", True, items, NOW).splitlines()[1] == (
        "m      d      kuma.io/service=api,web version=v2   192.168.0.1   1s"
    )


def overview(inbounds: list[dict[str, Any]], **insight: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"mesh": "default", "name": "api-1", "dataplane": {"networking": {"inbound": inbounds}}}
    return {**found, "dataplaneInsight": insight} if insight else found


API = {"port": 8080, "tags": {"kuma.io/service": "api"}}


def test_a_proxy_that_is_online() -> None:
    def stream(sent: str, **more: Any) -> dict[str, Any]:
        return {"status": {"total": {"responsesSent": sent, "responsesRejected": "1"}, **more}}

    last = stream("11", lastUpdateTime=before(seconds=12)) | {
        "connectTime": before(minutes=5),
        "version": {
            "kumaDp": {"version": "2.7.19"},
            "envoy": {"version": "1.29.9"},
            "dependencies": {"coredns": "1.1"},
        },
    }
    first = stream("3") | {"connectTime": before(hours=1), "disconnectTime": before(minutes=5)}
    mtls = {
        "certificateExpirationTime": "2026-01-02T10:00:00Z",
        "lastCertificateRegeneration": before(minutes=5),
        "certificateRegenerations": 1,
        "issuedBackend": "ca-1",
        "supportedBackends": ["ca-1", "ca-2"],
    }
    row = tables.overviews([overview([API], subscriptions=[first, last], mTLS=mtls)], NOW).splitlines()[1]
    expiration = times.original_date("2026-01-02T10:00:00Z")
    assert [cell.strip() for cell in row.split("   ") if cell.strip()] == [
        "default", "api-1", "kuma.io/service=api", "Online", "5m", "12s", "14", "2", "5m", expiration, "1", "ca-1",
        "ca-1,ca-2", "2.7.19", "1.29.9", "coredns: 1.1",
    ]  # fmt: skip


def test_what_a_proxy_rejects_is_noted_until_it_disconnects() -> None:
    stream = {
        "connectTime": before(minutes=5),
        "status": {"lastUpdateTime": before(minutes=1), "lds": {"lastRejection": "a:80: port\n taken"}, "cds": {}},
    }
    for end, note in ({}, "rejected lds: a:80: port taken"), ({"disconnectTime": before(seconds=1)}, "-"):
        row = tables.overviews([overview([API], subscriptions=[stream | end])], NOW).splitlines()[1]
        assert row.rstrip().endswith(note)


def test_an_inbound_that_is_not_served_is_noted_with_the_reason() -> None:
    reason = "networking.inbound[0].servicePort: 127.0.0.1:9901 is the administration of an Envoy"
    row = tables.overviews([overview([API], withheldInbounds=[reason])], NOW).splitlines()[1]
    assert row.rstrip().endswith(f"not served: {reason}")


def test_the_end_of_a_token_is_noted_before_and_after() -> None:
    for end, note in (
        (before(days=-20), "-"),
        (before(days=-10), "token ends 2026-01-11 12:00:00+00:00: put a new one into kuma-dp's file"),
        (
            before(days=1),
            "token expired 2025-12-31 12:00:00+00:00: no new certificate until kuma-dp's file has a new one",
        ),
    ):
        warning = (datetime.fromisoformat(end) - timedelta(days=14)).isoformat()
        token = {"expirationTime": end, "warningTime": warning}
        row = tables.overviews([overview([API], token=token)], NOW).splitlines()[1]
        assert row.rstrip().endswith(note), row


def test_a_proxy_that_never_connected() -> None:
    row = tables.overviews([overview([API])], NOW).splitlines()[1]
    assert row.split() == [
        "default", "api-1", "kuma.io/service=api", "Offline", "never", "never", "0", "0", "never", "-", "0", "-", "-",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inbounds", "status", "notes"),
    [
        ([API, {**API, "port": 1, "state": "NotReady"}], "Partially degraded", 1),
        ([{**API, "health": {}}], "Offline", 1),
        ([{**API, "health": {"ready": True}}], "Online", 0),
    ],
)
def test_inbounds_that_are_not_ready(inbounds: list[dict[str, Any]], status: str, notes: int) -> None:
    found, said = tables.status_of({"inbound": inbounds}, [{"connectTime": before(seconds=1)}])
    assert (found, len(said)) == (status, notes)
    assert all(note.endswith("is not ready") for note in said)


def test_a_dataplane_on_which_no_permission_acts() -> None:
    assert tables.policies([]) == "No permission acts on it; with mutual TLS its inbounds admit nobody."


def test_what_people_look_at_first_fits_a_terminal() -> None:
    mtls = {
        "certificateExpirationTime": before(days=-29, hours=-1), "issuedBackend": "ca-1", "supportedBackends": ["ca-1"],
    }  # fmt: skip
    long = overview([API, {**API, "tags": {"kuma.io/service": "a" * 60}}], mTLS=mtls, withheldInbounds=["a reason"])
    shown = tables.overviews([long], NOW, Layout(80)).splitlines()
    assert all(len(line) <= 80 for line in shown)
    assert shown[0].split("   ")[0] == "NAME"
    assert "in 29d" in shown[1]
    assert shown[2:] == ["", "api-1: notes: not served: a reason"]
    transition = {
        "mesh": "default", "step": "complete", "since": before(minutes=5), "acknowledged": 1, "followers": 2,
        "outOfContact": [{"name": "web-01", "since": before(minutes=9), "mayServeUntil": before(days=-1)}],
        "backends": [{"name": "ca-1", "notAfter": before(days=-3650), "problem": "it is no more"}],
    }  # fmt: skip
    mesh = {"name": "default", "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}}
    shown = mesh_tables.meshes([mesh], {"default": transition}, {}, NOW, Layout(80)).splitlines()
    assert all(len(line) <= 80 for line in shown[:2])
    assert shown[-1] == "default: problems: ca-1: it is no more"
    assert any(line.startswith("default: out of contact: web-01 (9m") for line in shown)
    kinds: tuple[dict[str, Any], ...] = (mesh, {"mesh": "m" * 60, "name": "n" * 250})
    for kind, item in zip(("Mesh", "TrafficPermission"), kinds, strict=True):
        shown = tables.resources(kind, kind != "Mesh", [item], NOW, Layout(80)).splitlines()
        assert all(len(line) <= 80 for line in shown)


def test_times_have_a_zone_or_are_ages() -> None:
    assert datetime.fromisoformat(times.date("2026-01-02T10:00:00Z")) == datetime(2026, 1, 2, 10, tzinfo=UTC)
    assert times.ends(before(seconds=-90), NOW) == "in 1m"
    assert times.ends(before(seconds=90), NOW) == "1m ago"
    assert times.ends(None, NOW) == "-"


def test_control_planes_tell_of_clocks_that_differ() -> None:
    found = {"address": "10.0.0.1:5677", "since": before(minutes=3), "proxies": 7, "version": "1.0"}
    items = [
        {**found, "name": "a", "leader": True, "clockDifferenceSeconds": -0.2},
        {**found, "name": "b", "leader": False, "clockDifferenceSeconds": 61.4},
    ]
    assert [line.split() for line in tables.control_planes(items, NOW).splitlines()] == [
        ["NAME", "ADDRESS", "SINCE", "PROXIES", "LEADER", "CLOCK", "VERSION"],
        ["a", "10.0.0.1:5677", "3m", "7", "yes", "-", "1.0"],
        ["b", "10.0.0.1:5677", "3m", "7", "-", "+61s", "1.0"],
    ]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("2026-01-01T10:00:00Z", "none for 2h"),
        ("2026-01-01T08:00:00Z", "none for 4h, all observed for 3h"),
        (None, "none seen in 3h"),
    ],
)
def test_since_when_nobody_calls_in_plaintext_is_told_with_how_long_that_is_known(
    last: str | None, expected: str
) -> None:
    observed = {"observed": 1, "since": "2026-01-01T09:00:00Z", "plaintext": {"callersLastHour": 0, "last": last}}
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert mesh_tables.plaintext_callers("PERMISSIVE", observed, now) == expected
