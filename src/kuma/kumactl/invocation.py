"""Context of one run of kumactl: its configuration, and the client that follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kuma.base.errors import Misconfigured
from kuma.base.values import durations
from kuma.kumactl.connection import config_file, transport, version_check
from kuma.kumactl.connection.client import Client
from kuma.kumactl.connection.config_file import Config


class Invocation:
    """The common options of a command."""

    def __init__(self, file: Path | None, *, no_config: bool, timeout: str) -> None:
        self.path = config_file.location(file)
        self._chosen = file is not None
        self._no_config = no_config
        self._timeout = timeout

    def config(self, *, may_begin: bool = False) -> Config:
        """The configuration in effect; a file that was asked for has to exist, unless it `may_begin` here.

        Raises:
            Misconfigured: it does not, or cannot be read or understood.
        """
        if self._no_config:
            return config_file.default()
        if self._chosen and not may_begin and not self.path.exists():
            raise Misconfigured(
                f"--config-file {self.path}: No such file or directory. "
                "It is begun with: kumactl --config-file FILE config control-planes add"
            )
        return config_file.load(self.path)

    @contextmanager
    def client(self, *, greet: bool = True, at_most: float = math.inf) -> Iterator[Client]:
        """A client of the chosen control plane; warns if the two do not fit, unless that is the caller's business.

        It waits `at_most` so many seconds for an answer.
        """
        server = self.config().current().api_server
        try:
            seconds = durations.parse_go_duration(self._timeout).total_seconds()
        except ValueError as error:
            raise Misconfigured(f"--api-timeout {error}") from None
        client = transport.client(server, min(seconds, at_most))
        transport.warn(server)
        try:
            if greet:
                version_check.warn(client)
            yield client
        finally:
            client.close()
