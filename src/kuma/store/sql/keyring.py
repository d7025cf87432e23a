"""Keys of a store that is open: with which one it is sealed, and which others are opened, too."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from kuma.base.errors import Misconfigured, Unavailable
from kuma.resources.models.coordination import InstanceSpec
from kuma.resources.resource import Resource
from kuma.store.sealing.encryption import AesGcmSealer, KeyFile, key_id
from kuma.store.sql import seal

log = structlog.get_logger(__name__)


class Keyring:
    """Several control planes over one store change its key in two steps, so that each can read at every moment.

    First all are given the next key, which they open with and do not seal with yet. When all have it, one of them seals
    everything with it; the others see that by the store's seal, and keep that key alone.
    """

    def __init__(self, file: KeyFile, sealer: AesGcmSealer) -> None:
        self.file = file
        self.sealer = sealer
        self._complaint = ""

    def follow(self, sealed: bytes) -> None:
        """Seals with the key from now on that the store has this seal of.

        Raises:
            StoreCorrupt: it is none of ours.
        """
        self.sealer = seal.led(self.sealer, sealed)

    def look(self) -> Sequence[str]:
        """Takes up the next key if there is one, and keeps it alone once it seals; returns the names of all keys."""
        try:
            self._look()
            self._complaint = ""
        except Misconfigured as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("the next key-encryption key is not used", reason=str(error))
        return [key_id(key) for key in self.sealer.keys]

    def _look(self) -> None:
        following = self.file.following()
        if following is None:
            return
        if following == self.sealer.keys[0]:
            self.file.settle_on(following)
            log.info("the store is sealed with another key-encryption key now, and the old one dropped")
        elif following not in self.sealer.keys:
            self.sealer = AesGcmSealer([*self.sealer.keys, following])


def check_all_have(following: bytes | None, instances: Sequence[Resource[InstanceSpec]], others: int) -> None:
    """See that each control plane over a store says that it has the next key; `others` are connected beside this one.

    Raises:
        Unavailable: there is none, or not all have it.
    """
    if following is None:
        raise Unavailable(
            "other control planes use the database with this key. Run kuma-cp prepare-key, and copy the file that it "
            "names to all of them, or stop them until the key is changed"
        )
    lacking = [each.name for each in instances if key_id(following) not in each.spec.keys]
    if lacking or len(instances) <= others:
        who = ", ".join(lacking) or "one that has only just begun"
        raise Unavailable(
            f"not all control planes have the next key yet, for which they look every 3 seconds: {who}. "
            "One that has ended is left out 10 seconds later"
        )
