"""The token of a proxy, and the file in which its Envoy finds the newest one for each new stream."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from kuma.agent import private_directory
from kuma.base import files
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured

log = structlog.get_logger(__name__)

_POLL = 1.0
"""Seconds between two looks at the user's file, which may be a link that is set elsewhere, or on another machine."""
_REMEDY = "Make one with: kumactl generate dataplane-token --name NAME --mesh MESH > FILE"
_PREFIX = "kuma-dp-token-"
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - the name of a type


class TokenSource:
    """Holds the token as it was read last; it is never empty."""

    def __init__(self, token: str, file: Path | None = None) -> None:
        self.token = token
        self.file = file
        """The file to read again; None if the token was given as it is, or by a pipe, and stays."""
        self._complaint = ""

    @classmethod
    def of(cls, file: Path | None, given: str = "") -> TokenSource:
        """Returns the token in a file, or else the given one.

        Raises:
            Misconfigured: there is none.
        """
        if file is None and given.strip():
            return cls(given.strip())
        if file is None:
            raise Misconfigured(f"--dataplane-token-file is needed: a proxy proves who it is with a token. {_REMEDY}")
        return cls(_read(file), file if _stays(file) else None)

    def renew(self) -> bool:
        """Reads the file again; returns whether it has another token. What cannot be read leaves the token as it is."""
        if self.file is None:
            return False
        try:
            before, self.token = self.token, _read(self.file, files.content)
        except Misconfigured as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("the token cannot be read again; the last one stays", reason=str(error))
            return False
        self._complaint = ""
        return self.token != before


def _stays(file: Path) -> bool:
    """Tells whether there is something to read again: not in a pipe, nor in what a shell or a parent has opened."""
    return file.is_file() and not file.absolute().is_relative_to("/dev")


def _read(file: Path, content: Callable[[Path], bytes] = Path.read_bytes) -> str:
    try:
        token = content(file).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise Misconfigured(f"--dataplane-token-file {file}: {reason}. {_REMEDY}") from None
    if not token:
        raise Misconfigured(f"--dataplane-token-file {file} is empty. {_REMEDY}")
    return token


class TokenSecret:
    """A file for Envoy, which reads it again whenever it is replaced (xDS from a file), and nobody else's to read."""

    def __init__(self, source: TokenSource, name: str, directory: Path) -> None:
        self._source = source
        self._name = name
        self.path = directory / "token.json"
        self._write()

    async def follow(self, clock: Clock) -> None:
        """Replaces the token by the one in the user's file whenever that is another, until cancelled.

        What cannot be written, as on a full disk, is tried again at every look, and said once.
        """
        told = ""
        while True:
            await clock.sleep(_POLL)
            self._source.renew()
            if self._source.token == self._written:
                continue
            try:
                self._write()
            except OSError as error:
                if (reason := str(error.strerror)) != told:
                    log.error("Envoy not given the new token; tried again every second", reason=reason)
                told = reason
            else:
                told = ""
                log.info("the token has been replaced", file=str(self._source.file))

    def _write(self) -> None:
        secret = {
            "@type": _SECRET,
            "name": self._name,
            "genericSecret": {"secret": {"inlineString": self._source.token}},
        }
        files.replace(self.path, json.dumps({"resources": [secret]}).encode())
        self._written = self._source.token


@contextlib.contextmanager
def secret(source: TokenSource, name: str, place: Path) -> Iterator[TokenSecret | None]:
    """Opens the secret of a token that may change, for as long as the block lasts; None if it stays the same.

    It is in a directory in `place` that only its owner enters.

    Raises:
        Misconfigured: there is no place for it.
    """
    if source.file is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            made = TokenSecret(source, name, stack.enter_context(private_directory.opened(place, _PREFIX)))
        except OSError as error:
            raise Misconfigured(f"no place for the token that Envoy reads: {error.strerror}") from None
        yield made
