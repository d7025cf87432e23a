"""`kumactl inspect` of what the original has for zones. There is one zone here, and no proxies between zones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from kuma.kumactl.commands.resources import Form, FormOption, layout, show_list
from kuma.kumactl.display.layout import Row, table
from kuma.kumactl.invocation import Invocation

_SEEN = ("NAME", "STATUS", "LAST CONNECTED AGO", "LAST UPDATED AGO", "TOTAL UPDATES", "TOTAL ERRORS")
_PROXY = (*_SEEN, "KUMA-DP VERSION", "ENVOY VERSION")


def zones(context: typer.Context, output: FormOption = Form.TABLE) -> None:
    """Show the zones; here, there is one.

    Example: kumactl inspect zones
    """
    _show(context.obj, "/zones+insights", (*_SEEN, "ZONE-CP VERSION", "BACKEND"), output)


def zone_ingresses(context: typer.Context, output: FormOption = Form.TABLE) -> None:
    """Show the proxies at which calls from other zones arrive, of which there are none.

    Example: kumactl inspect zone-ingresses
    """
    _show(context.obj, "/zoneingresses+insights", _PROXY, output)


def zone_egresses(context: typer.Context, output: FormOption = Form.TABLE) -> None:
    """Show the proxies through which calls leave a zone, of which there are none.

    Example: kumactl inspect zoneegresses
    """
    _show(context.obj, "/zoneegressoverviews", _PROXY, output)


def _show(invocation: Invocation, path: str, headers: Row, output: Form) -> None:
    """Fetches and shows zones, or proxies between them: each by its name, and whether it is connected."""
    with invocation.client() as client:
        items = client.list_whole(path)
    unknown = [""] * (len(headers) - 2)
    rows = [(item["name"], _status(item), *unknown) for item in items]
    show_list(items, output, lambda: table(headers, rows, layout(output)))


def _status(overview: Mapping[str, Any]) -> str:
    insight: Mapping[str, Any] = next((v for name, v in overview.items() if name.endswith("Insight")), {})
    connected = any(s.get("connectTime") and not s.get("disconnectTime") for s in insight.get("subscriptions", ()))
    return "Online" if connected else "Offline"
