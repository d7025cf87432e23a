"""What is known of proxies that the original's kuma-dp runs: they are not asked who calls, and known not to report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from kuma.base.tls.trust import NOBODY
from kuma.resources import codec
from kuma.xds.envoy.listeners import reports
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource, running

BACKEND = dataplane("backend-01", "backend", port=80)
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")


async def test_it_gives_its_certificate_and_what_it_rejects_and_is_known_not_to_report(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(PERMISSIVE, ALLOW_ALL)
        proxy = await cp.proxy(BACKEND)  # which says nothing of features
        await cp.settled(1)
        told = await cp.insight(
            BACKEND, lambda found: found.mtls and found.subscriptions[-1].status.lds.responses_acknowledged
        )
        assert told.mtls.issued_backend == "ca-1"
        listeners = proxy.held[TypeUrl.LISTENER].values()
        assert listeners
        assert not any(reports.LOG.encode() in one.SerializeToString() for one in listeners)

        async with httpx.AsyncClient(
            verify=NOBODY, trust_env=False, base_url=f"http://localhost:{await cp.api_port()}"
        ) as client:

            async def items(path: str) -> list[dict[str, Any]]:
                found: list[dict[str, Any]] = (await client.get(path)).json()["items"]
                return found

            (summary,) = await items("/observed-traffic")
            assert (summary["unobserved"], summary["plaintext"]["last"]) == (["backend-01"], None)
            (plaintext, *more) = [one for one in await items("/health-findings") if one["check"] == "plaintext"]
            assert "not known who calls 1 Dataplane: backend-01" in str([plaintext, *more])
            asked = await client.post("/preview", json={"resources": [codec.to_universal(resource(MTLS))]})
            assert asked.json()["items"][0]["strict"]["answer"] == "unknown"
            (used,) = await items("/certificates")
            assert "backend-01" in str(used)
