"""Events: what a controller tells about an object to whoever describes it with kubectl."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Literal

import structlog

from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object

log = structlog.get_logger(__name__)

_LONGEST = 1000


async def tell(
    client: ApiClient,
    about: Object,
    source: str,
    type_: Literal["Normal", "Warning"],
    reason: str,
    message: str,
    *,
    kind: str = "Pod",
    once: bool = False,
) -> None:
    """Tells about a Pod, or another object of the core group; `once`, as long as the event is kept, whoever tells it.

    What cannot be told is logged: nothing depends on it.
    """
    metadata, now = about["metadata"], datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    named = {name: metadata[name] for name in ("name", "namespace", "uid")}
    same = hashlib.sha256(f"{metadata['uid']} {reason} {message}".encode()).hexdigest()[:16]
    event = {
        "apiVersion": "v1", "kind": "Event", "type": type_, "reason": reason, "message": message[:_LONGEST],
        "metadata": {
            "name": f"{metadata['name'][:230]}.{same if once else secrets.token_hex(8)}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {"apiVersion": "v1", "kind": kind, **named},
        "source": {"component": source}, "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    }  # fmt: skip
    try:
        await client.create(f"/api/v1/namespaces/{metadata['namespace']}/events", event)
    except (ApiError, Unavailable) as error:
        if once and isinstance(error, ApiError) and error.code == 409:
            return  # told already
        log.warning("an event was not told", about=metadata["name"], told=reason, reason=str(error))
