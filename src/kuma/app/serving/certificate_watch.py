"""Looks whether the files of the servers' certificate are others now, and has the servers show what is in them.

One of the control plane's own is made anew in time, too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog
from cryptography.exceptions import UnsupportedAlgorithm

from kuma.app.serving.server_certificate import ServerCertificate
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured
from kuma.base.files import content
from kuma.base.tls.server_identity import ServerIdentity
from kuma.pki import pem
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.validity import Validity
from kuma.xds.bootstrap.server_names import ServerNames

log = structlog.get_logger(__name__)

_POLL = 1.0
"""Seconds between two looks: files may be links that are set elsewhere, or on another machine."""
_ASKED_AGAIN = timedelta(days=1)
"""How often the files are asked for anew: whoever makes them replaces a certificate that has become old."""


class CertificateWatch:
    """Keeps what servers show until the files have a whole new pair that belongs together and has not ended."""

    def __init__(self, files: Callable[[], ServerCertificate], clock: Clock) -> None:
        """`files` finds the files; it takes the CA from the chain if none is given, and makes what is for us to make.

        Raises:
            Misconfigured: they cannot be read.
        """
        self._files = files
        self._clock = clock
        self.certificate = files()
        try:
            self.identity = ServerIdentity.of(self.certificate.chain, self.certificate.key)
            self._ca = content(self.certificate.ca)
        except OSError as error:
            raise Misconfigured(f"cannot read the servers' certificate {error.filename}: {error.strerror}") from None
        self._names = ServerNames.of(self.identity.pair[1], self._ca)
        self._seen = self._stamps()
        self._asked = clock.now()

    def names(self) -> ServerNames:
        """Returns the names by which the servers are reached now, and the CA that verifies them."""
        return self._names

    def validity(self) -> Validity:
        """Returns when the certificate ends that is shown now."""
        return Validity.of(pem.read_chain(self.identity.pair[1])[0])

    async def run(self) -> None:
        """Watch until cancelled."""
        self._tell_of_its_end()
        while True:
            await self._clock.sleep(_POLL)
            self.look()

    def look(self) -> None:
        """Takes up what the files hold, if they have changed."""
        if self._clock.now() - self._asked >= _ASKED_AGAIN:
            self._ask()
            self._tell_of_its_end()
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._take_up()
        except (OSError, AuthorityUnusable, Misconfigured, ValueError, UnsupportedAlgorithm) as error:
            log.warning("the servers' new certificate is not used; the old one stays", reason=str(error))

    def _ask(self) -> None:
        self._asked = self._clock.now()
        try:
            self._files()
        except (OSError, AuthorityUnusable, Misconfigured, ValueError, UnsupportedAlgorithm) as error:
            log.warning("the servers' certificate cannot be made anew; the old one stays", reason=str(error))

    def _tell_of_its_end(self) -> None:
        found, now = self.validity(), self._clock.now()
        told = found.told(now)
        if told:
            remedy = f"replace {self.certificate.chain} and {self.certificate.key}: they are read again"
            (log.error if found.ends <= now else log.warning)(told, remedy=remedy)

    def _take_up(self) -> None:
        found = self._files()
        chain, key, ca = map(content, (found.chain, found.key, found.ca))
        leaf = pem.read_chain(chain)[0]
        pem.check_pair(leaf, pem.read_key(key))
        if leaf.not_valid_after_utc <= self._clock.now():
            raise Misconfigured(f"the certificate in {found.chain} has ended")
        names = ServerNames.of(chain, ca)
        if (key, chain) != self.identity.pair:
            self.identity.replace(chain, key)
            log.info("the servers show another certificate", names=names.names, ends=str(leaf.not_valid_after_utc))
        if ca != self._ca:
            log.warning(
                "the servers' CA is another: kuma-dp and kumactl need it, beside the old one until all have it",
                ca=str(found.ca),
            )
        self.certificate, self._names, self._ca = found, names, ca

    def _stamps(self) -> tuple[object, ...]:
        return tuple(map(_stamp, (self.certificate.chain, self.certificate.key, self.certificate.ca)))


def _stamp(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_mtime_ns, found.st_size
