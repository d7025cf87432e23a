"""Addresses with ports, as people read and type them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def split(text: str, *schemes: str) -> SplitResult:
    """Returns the parts of a URL that has one of these schemes and names a host.

    Raises:
        ValueError: it is not such a URL; the text says what it has to be.
    """
    try:
        found = urlsplit(text)
        in_range = found.port is None or found.port > 0
    except ValueError:  # an address in brackets without an end, or a port beyond 65535
        in_range = False
    if not in_range or found.scheme not in schemes or not found.hostname:
        article = "an" if schemes[0].startswith("http") else "a"
        raise ValueError(
            f"has to be {article} {' or '.join(schemes)} URL of a host, with a port from 1 to 65535 if any"
        )
    return found


def host_port(host: str, port: int) -> str:
    """`10.0.0.1:80`, or `[fd00::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
