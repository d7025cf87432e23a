"""Compares the versions of kumactl and the control plane before every command; never fails it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

import kuma
from kuma.base.values.printable import printable
from kuma.kumactl.connection.client import Client, RequestFailed

PRODUCT = "Kuma"
_ANY_VERSION = "preview"
"""A server whose version says this fits every client."""


def warn(client: Client) -> None:
    """Ask, and warn on standard error. Of a server that does not answer, the command itself tells."""
    try:
        text = warning(client.index())
    except RequestFailed as error:
        text = _UNCONFIRMED if error.status else ""
    if text:
        typer.echo(printable(text), err=True)


_UNCONFIRMED = "WARNING: Unable to confirm the server supports this kumactl version"


def warning(index: Mapping[str, Any]) -> str:
    """Returns the warning for a server that describes itself like this; empty if the versions fit."""
    if not isinstance(index, Mapping):
        return _UNCONFIRMED
    product, version = product_of(index), str(index.get("version", ""))
    if product == PRODUCT and (version == kuma.__version__ or _ANY_VERSION in version):
        return ""
    return (
        f"WARNING: You are using kumactl version {kuma.__version__} for {PRODUCT}, "
        f"but the server returned version: {product} {version}"
    )


def product_of(index: Mapping[str, Any]) -> str:
    """Returns the product name; old servers say it in the tagline."""
    return str(index.get("product") or index.get("tagline") or "")
