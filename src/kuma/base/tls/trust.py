"""Whom clients trust."""

from __future__ import annotations

import ssl

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of plain HTTP, such as of Envoy's administration: for each of them httpx would load all well-known
authorities, which takes 20 milliseconds of a core. Over HTTPS it lets nobody be called."""
