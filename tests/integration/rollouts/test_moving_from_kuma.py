"""Proxies move to another control plane with the same CA, and back, by the commands of `docs/moving-from-kuma.md`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from demo.processes import BIN
from kuma.resources import kinds
from kuma.tokens import dataplane_tokens
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import Sidecar, Sidecars, more, sidecars, traffic, until

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "moving-from-kuma.md").read_text()
BLOCK = re.compile(r"^ *```sh (moving|moving-one)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall(PAGE)
(REACH, EVERYTHING), (LEAVE, RETURN) = (
    [text for kind, text in BLOCKS if kind == wanted] for wanted in ("moving", "moving-one")
)


class Commands:
    """The commands of the page, as its reader types them."""

    def __init__(self, home: Path, **variables: str) -> None:
        self._home = home
        self._environment = {**os.environ, **variables, "HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}"}

    async def run(self, text: str, replaced: Mapping[str, str] | None = None) -> None:
        for word, other in (replaced or {}).items():
            text = text.replace(word, other)
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-ec", f"{REACH.partition('old config')[0]}{text}"], cwd=self._home,
            env=self._environment, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


async def move(sidecar: Sidecar, to: Sidecars, commands: Commands, *, back: bool) -> None:
    """The three steps for one proxy."""
    words = {"backend-02.yaml": f"{sidecar.name}.yaml", "backend-02": f"{sidecar.name}-01"}
    swapped = {"new delete": "old delete", "old apply": "new apply"} if back else {}
    await commands.run(LEAVE, {**words, **swapped})
    sidecar.running.send_signal(signal.SIGTERM)
    await asyncio.wait_for(sidecar.running.wait(), PATIENCE)
    await to.run(sidecar)
    await commands.run(RETURN, {**words, **swapped})


def online(cp: Running) -> set[str]:
    return {proxy.key.name for proxy in cp.parts.proxies}


async def test_proxies_move_and_come_back_and_no_call_fails(tmp_path: Path) -> None:
    old, new, home = (tmp_path / name for name in ("old", "new", "home"))
    for directory in (old, new, home):
        directory.mkdir()
    async with (
        running(old) as first,
        running(new) as second,
        sidecars(first, old) as before,
        sidecars(second, new) as after,
    ):
        await first.apply(MTLS, ALLOW_ALL)
        servers = [await before.start(name, service="backend", protocol="tcp") for name in ("one", "two")]
        stays = await before.start("web", calls=("backend",), protocol="tcp")
        commands = Commands(
            home,
            OLD=f"http://localhost:{await first.api_port()}",
            NEW=f"http://localhost:{await second.api_port()}",
        )
        await commands.run(REACH)
        await commands.run(EVERYTHING)
        ca = kinds.SECRET.key("default.ca-builtin-key-ca-1", "default")
        assert (await first.parts.manager.get(ca)).spec == (await second.parts.manager.get(ca)).spec
        secrets = second.parts.views.view("default").secrets
        dataplane_tokens.verify_token(first.token(name="one-01"), "default", secrets, datetime.now(UTC))
        for server in servers:
            for directory in (new, home):
                shutil.copy(old / f"{server.name}.yaml", directory)
        newcomer = await after.start("other", calls=("backend",), protocol="tcp")
        for caller in (stays, newcomer):
            await until(f"{caller.name} reaches who has not moved", partial(called, caller))
        async with traffic(lambda: called(stays)) as here, traffic(lambda: called(newcomer)) as there:
            for server in servers:
                await move(server, after, commands, back=False)
                await more(here)
                await more(there)
            assert online(second) == {"one-01", "two-01", "other-01"}
            for server in servers:
                await move(server, before, commands, back=True)
                await more(here)
                await more(there)
            assert online(first) == {"one-01", "two-01", "web-01"}
        assert set(here) | set(there) <= {b"one:hello", b"two:hello"}
        assert len({*here}) == len({*there}) == 2, "both have been called from both sides"


async def called(caller: Sidecar) -> bytes:
    return await caller.talk("backend")
