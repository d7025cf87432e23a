"""What `kumactl check` and `kumactl preview` print: whole for programs, and within a terminal for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kuma.kumactl.display import foresight
from kuma.kumactl.display.layout import Layout

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TERMINAL = Layout(width=80)
LONG = "the authority ca-1 ends in three days, before the certificates of its proxies, which will not be renewed then"
REMEDY = "list another backend in the Mesh, and make it the enabled one"
FINDINGS: list[dict[str, Any]] = [
    {"mesh": "default", "check": "authority", "status": "failure", "found": LONG, "remedy": REMEDY},
    {"mesh": "default", "check": "permissions", "status": "ok", "found": "every service has one " * 6, "remedy": ""},
]
CALLER = {
    "caller": "spiffe://default/a-service-with-a-rather-long-name", "dataplanes": ["web-01", "web-02"],
    "service": "another-service-with-a-long-name", "port": 8080, "how": "meshTls", "effect": "refused",
    "last": "2025-12-31T23:00:00Z", "connections": 12, "why": "MeshTrafficPermission closed refuses it by name " * 2,
}  # fmt: skip
PREVIEW: dict[str, Any] = {
    "items": [
        {
            "mesh": "default", "refused": 1, "admitted": 0, "declaredOnly": 0, "strict": None, "unobservedTotal": 0,
            "unobserved": [], "callers": [CALLER], "laggards": [], "endings": [], "steps": [],
        }
    ]
}  # fmt: skip


def table_of(text: str) -> list[str]:
    """The lines before the first empty one."""
    return text.partition("\n\n")[0].splitlines()


def test_findings_fit_a_terminal_and_what_is_to_be_done_is_told_in_full() -> None:
    shown = foresight.findings(FINDINGS, TERMINAL)
    assert all(len(line) <= 80 for line in table_of(shown))
    assert shown.splitlines()[-1] == f"default: to do: authority: {LONG}. {REMEDY}"
    whole = foresight.findings(FINDINGS).splitlines()
    assert whole[0].split() == ["MESH", "CHECK", "STATUS", "FOUND", "REMEDY"]
    assert REMEDY in whole[1]


def test_a_preview_fits_a_terminal_and_tells_why_in_full() -> None:
    shown = foresight.preview(PREVIEW, NOW, TERMINAL)
    head, _, table = shown.partition("\n\n")
    assert "1 caller would be refused" in head
    assert all(len(line) <= 80 for line in table_of(table))
    assert shown.rstrip().endswith(CALLER["why"].strip())  # type: ignore[attr-defined]
    assert "CONNECTIONS" in foresight.preview(PREVIEW, NOW)
