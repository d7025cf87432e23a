"""Tokens that are signed without the control plane, which knows the public key only: from the key to a real proxy."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from demo.processes import BIN
from kuma.base.tls.trust import NOBODY
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import sidecars


def kumactl(*arguments: str) -> str:
    return subprocess.run([BIN / "kumactl", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def key(tmp_path: Path) -> Path:
    found = tmp_path / "key.pem"
    found.write_text(kumactl("generate", "signing-key", "--format", "pem"))
    return found


@pytest.fixture
async def cp(tmp_path: Path, key: Path) -> AsyncIterator[Running]:
    public = tmp_path / "public.pem"
    public.write_text(kumactl("generate", "public-key", "--signing-key-path", str(key)))
    keys = [{"kid": "key-1", "mesh": "default", "key_file": public}]
    dp_token = {"enable_issuer": False, "validator": {"use_secrets": False, "public_keys": keys}}
    users = {"enable_issuer": False, "validator": {"public_keys": [{"kid": "key-1", "key": public.read_text()}]}}
    async with running(
        tmp_path,
        dp_server={"port": 0, "authn": {"dp_proxy": {"dp_token": dp_token}}},
        api_server={"http": {"port": 0}, "https": {"enabled": False}, "authn": {"tokens": users}},
    ) as found:
        await found.apply(MTLS, ALLOW_ALL)
        yield found


async def test_a_proxy_runs_with_a_token_that_was_signed_elsewhere(cp: Running, key: Path, tmp_path: Path) -> None:
    signing = ("--signing-key-path", str(key), "--kid", "key-1", "--valid-for", "24h")
    async with sidecars(cp, tmp_path) as mesh:
        mesh.token = lambda name: kumactl("generate", "dataplane-token", "--name", name, "--mesh", "default", *signing)
        web = await mesh.start("web")
        assert await asyncio.to_thread(web.log.exists)

    # The keys in Secrets verify nothing, nor does the public key verify what it did not sign, or for whom it is not.
    refused = await cp.proxy(dataplane("other", "other"), token=cp.token())
    assert "signed by a key that mesh" in str(await refused.failure())
    named = kumactl("generate", "dataplane-token", "--name", "web-01", "--mesh", "default", *signing)
    refused = await cp.proxy(dataplane("other", "other"), token=named)
    assert "different than in token" in str(await refused.failure())
    another = tmp_path / "another.pem"
    another.write_text(kumactl("generate", "signing-key", "--format", "pem"))
    forged = kumactl("generate", "dataplane-token", "--signing-key-path", str(another), "--kid", "key-1")
    refused = await cp.proxy(dataplane("other", "other"), token=forged)
    assert "its signature is not by the key that it names" in str(await refused.failure())

    user = kumactl("generate", "user-token", "--name", "mesh-system:admin", "--group", "mesh-system:admin", *signing)
    async with httpx.AsyncClient(
        verify=NOBODY, base_url=f"http://127.0.0.1:{await cp.api_port()}", timeout=PATIENCE
    ) as client:
        client.headers["authorization"] = f"Bearer {user}"
        assert (await client.get("/who-am-i")).json()["name"] == "mesh-system:admin"
        for kind, request in (
            ("dataplane", {"name": "web-01", "mesh": "default", "validFor": "1h"}),
            ("user", {"name": "john", "validFor": "1h"}),
        ):
            answer = await client.post(f"/tokens/{kind}", json=request)
            assert answer.status_code == 403
            assert "issuing tokens by this control plane is disabled" in answer.text
        client.headers["authorization"] = f"Bearer {named}"
        assert (await client.get("/meshes")).status_code == 401
