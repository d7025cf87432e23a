"""What all workers share: the sockets that they accept from, and the settings as they were when the parent began."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kuma.app.configuration.settings import Settings
from kuma.app.serving import servers
from kuma.base.errors import Misconfigured
from kuma.base.system import service_manager, sockets


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one worker is given. Sockets and `settings` are descriptors that it inherits.

    `listeners` are by the setting of their port. `settings` holds the file with settings as it was when the parent
    began, so that a worker that is started later is as the others; `file` is where it is, to be read again at a reload.
    """

    number: int
    of: int
    link: int
    listeners: Mapping[str, int]
    siblings: Sequence[int]
    settings: int | None
    file: str | None
    level: str | None

    @classmethod
    def read(cls, text: str) -> Share:
        """Reads what `command` has written."""
        given: dict[str, Any] = json.loads(text)
        return cls(**given)

    def command(self) -> Sequence[str]:
        """The command of this worker. `-P`: no module is taken from the directory that it is started in."""
        return (sys.executable, "-P", "-m", "kuma.app.workers", json.dumps(asdict(self)))

    def descriptors(self) -> Sequence[int]:
        """All that it inherits."""
        return (self.link, *self.listeners.values(), *(() if self.settings is None else (self.settings,)))


class Sharing:
    """Opens what workers share, and holds it open while they come and go: a connection that waits is not lost then."""

    def __init__(self, settings: Settings, file: Path | None, level: str | None, stack: contextlib.ExitStack) -> None:
        """`stack` closes all of it.

        Raises:
            Misconfigured: a port is in use, or the file cannot be read any more.
        """
        self._count = settings.general.workers
        self._file = str(file.absolute()) if file else None
        self._level = level
        self._settings = _copy(file, stack) if file else None
        self._common = {
            setting: stack.enter_context(sockets.listening(host, port, setting))
            for setting, host, port in _ports(settings)
        }
        self._diagnostics = [
            stack.enter_context(sockets.listening("127.0.0.1", 0, servers.DIAGNOSTICS_PORT)) for _ in self.numbers
        ]

    @property
    def numbers(self) -> range:
        """The numbers of all workers."""
        return range(1, self._count + 1)

    def diagnostics_of(self, number: int) -> int:
        """The port of the loopback where a worker serves its diagnostics."""
        return int(self._diagnostics[number - 1].getsockname()[1])

    def share(self, number: int, link: socket.socket) -> Share:
        """Returns what a worker is given, beside its own end of a link."""
        own = {servers.DIAGNOSTICS_PORT: self._diagnostics[number - 1]}
        return Share(
            number=number,
            of=self._count,
            link=link.fileno(),
            listeners={setting: found.fileno() for setting, found in (self._common | own).items()},
            siblings=[self.diagnostics_of(other) for other in self.numbers if other != number],
            settings=self._settings,
            file=self._file,
            level=self._level,
        )


def environment() -> Mapping[str, str]:
    """The environment of workers: only the parent talks to the service manager."""
    return {name: value for name, value in os.environ.items() if name != service_manager.SOCKET}


def _ports(settings: Settings) -> Iterator[tuple[str, str, int]]:
    api, dp = settings.api_server, settings.dp_server
    if api.http.enabled:
        yield servers.HTTP_PORT, api.http.interface, api.http.port
    if api.https.enabled:
        yield servers.HTTPS_PORT, api.https.interface, api.https.port
    yield servers.DP_PORT, dp.interface, dp.port
    yield servers.XDS_PORT, dp.interface, settings.xds_server.port


def _copy(file: Path, stack: contextlib.ExitStack) -> int:
    """Returns a descriptor of a copy in memory."""
    copied = os.memfd_create(file.name)
    stack.callback(os.close, copied)
    try:
        os.write(copied, file.read_bytes())
    except OSError as error:
        raise Misconfigured(f"cannot read the configuration file {file}: {error.strerror}") from None
    return copied
