"""`kumactl inspect` of what the original has for zones. There is one control plane here and no zones: empty tables."""

from __future__ import annotations

import typer

from kuma.kumactl.commands.resources import Form, FormOption, show_list
from kuma.kumactl.display import tables
from kuma.kumactl.invocation import Invocation

_SEEN = ("NAME", "STATUS", "LAST CONNECTED AGO", "LAST UPDATED AGO", "TOTAL UPDATES", "TOTAL ERRORS")
_PROXY = (*_SEEN, "KUMA-DP VERSION", "ENVOY VERSION")


def zones(context: typer.Context, output: FormOption = Form.TABLE) -> None:
    """Show zones, of which there are none.

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


def _show(invocation: Invocation, path: str, headers: tables.Row, output: Form) -> None:
    """Fetches and shows a list that is empty on our control plane; that of another one is shown by name."""
    with invocation.client() as client:
        items = client.list_whole(path)
    unknown = [""] * (len(headers) - 1)
    show_list(items, output, lambda: tables.table(headers, [(item["name"], *unknown) for item in items]))
