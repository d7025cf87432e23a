"""The token of a proxy is read again from its file, and Envoy finds the newest one."""

import asyncio
import contextlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kuma.agent import private_directory, token_source
from kuma.agent.token_source import TokenSecret, TokenSource
from kuma.base import aio
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE


def held(secret: TokenSecret) -> str:
    (resource,) = json.loads(secret.path.read_text())["resources"]
    found: str = resource["genericSecret"]["secret"]["inlineString"]
    return found


async def look(clock: ManualClock) -> None:
    """Return once the file has been looked at again: it is waited for the next time."""
    async with asyncio.timeout(PATIENCE):
        while not clock.sleepers:
            await asyncio.sleep(0)
        clock.advance(1)
        while not clock.sleepers:
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def followed(file: Path, clock: ManualClock, place: Path) -> AsyncIterator[tuple[TokenSecret, list[Any]]]:
    """The secret of a token whose file is looked at again as the clock goes, and what is logged meanwhile."""
    with capture_logs() as logs, token_source.secret(TokenSource.of(file), "dataplane_token", place) as secret:
        assert secret is not None
        following = aio.spawn(secret.follow(clock), name="token")
        try:
            yield secret, logs
        finally:
            await aio.stop([following])


HOLDER = """
import pathlib, sys, time
from kuma.agent import token_source
file, place = map(pathlib.Path, sys.argv[1:])
with token_source.secret(token_source.TokenSource.of(file), "token", place) as secret:
    print(secret.path, flush=True)
    time.sleep(600)
"""


def test_the_token_of_one_that_was_killed_goes_when_the_next_one_starts(tmp_path: Path) -> None:
    """And that of one that runs stays, however long it has run."""
    file = tmp_path / "token"
    file.write_text("one")
    command = [sys.executable, "-c", HOLDER, str(file), str(tmp_path)]
    with contextlib.ExitStack() as stack:
        killed, running = (stack.enter_context(subprocess.Popen(command, stdout=-1, text=True)) for _ in range(2))
        stack.callback(running.kill)
        stack.callback(killed.kill)
        places = [Path(process.stdout.readline().strip()) for process in (killed, running) if process.stdout]
        for place in places:
            os.utime(place.parent, (0, 0))
        killed.kill()
        killed.wait()
        assert [place.exists() for place in places] == [True, True]
        with token_source.secret(TokenSource.of(file), "token", tmp_path):
            assert [place.parent.exists() for place in places] == [False, True]


async def test_what_cannot_be_read_leaves_the_token_as_it_is_and_is_said_once(tmp_path: Path) -> None:
    file, clock = tmp_path / "token", ManualClock()
    file.write_text("first\n")
    async with followed(file, clock, tmp_path) as (secret, logs):
        assert held(secret) == "first"
        for content in ("", ""):
            file.write_text(content)
            await look(clock)
            assert held(secret) == "first"
        file.unlink()
        await look(clock)
        assert held(secret) == "first"
        (tmp_path / "elsewhere").write_text("second")
        file.symlink_to("elsewhere")
        await look(clock)
        assert held(secret) == "second"
    assert [line["event"].partition(";")[0] for line in logs] == [
        "the token cannot be read again",
        "the token cannot be read again",
        "the token has been replaced",
    ]
    assert not [line for line in logs if "first" in str(line) or "second" in str(line)]


async def test_a_token_that_could_not_be_written_is_given_as_soon_as_it_can(tmp_path: Path) -> None:
    """As on a disk that was full for a while: the user's file does not change again."""
    file, clock = tmp_path / "token", ManualClock()
    file.write_text("first")
    async with followed(file, clock, tmp_path) as (secret, logs):
        blocked = secret.path.with_name(f".{secret.path.name}.new")
        blocked.mkdir()
        file.write_text("second")
        await look(clock)
        await look(clock)
        assert held(secret) == "first"
        blocked.rmdir()
        await look(clock)
        assert held(secret) == "second"
    assert [line["log_level"] for line in logs] == ["error", "info"], "the same is said once"


def test_nobody_else_reads_it_and_nothing_of_it_stays(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    with token_source.secret(TokenSource.of(tmp_path / "token"), "dataplane_token", tmp_path) as secret:
        assert secret is not None
        assert stat.S_IMODE(secret.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(secret.path.parent.stat().st_mode) == 0o700
    assert not secret.path.parent.exists()


def test_a_token_that_is_given_or_comes_by_a_pipe_is_in_no_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    piped = TokenSource.of(Path(f"/dev/fd/{reading}"))
    os.close(reading)
    for source, token in ((piped, "piped"), (TokenSource.of(None, "given"), "given")):
        assert source.token == token
        assert not source.renew()
        with token_source.secret(source, "dataplane_token", tmp_path) as secret:
            assert secret is None


@pytest.mark.parametrize(
    ("version", "memory"), [("1.40.0", True), ("1.39.0", True), ("1.38.3", False), ("1.9.1", False)]
)
def test_an_envoy_that_reads_nothing_below_dev_is_given_files_elsewhere(version: str, memory: bool) -> None:
    """It would be without the token and the CA, and never come to its control plane."""
    assert private_directory.place(version).is_relative_to("/dev") is memory


def test_what_says_no_version_is_given_files_where_every_envoy_reads_them() -> None:
    assert not private_directory.place("dirty").is_relative_to("/dev")


def test_a_pipe_in_the_place_of_the_file_keeps_nothing_waiting(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    source = TokenSource.of(file)
    file.unlink()
    os.mkfifo(file)
    assert not source.renew()
    assert source.token == "first"
