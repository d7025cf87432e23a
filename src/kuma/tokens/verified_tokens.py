"""Dataplane tokens whose signature has been verified already: a proxy shows its token several times when it connects.

It does so for its bootstrap, and in each of its streams. Verifying a token takes as long as issuing a leaf.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from datetime import datetime
from typing import NamedTuple

from kuma.resources.models.secret import Secrets
from kuma.tokens import dataplane_tokens
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.tokens.validation import Validation

_KEPT = 10_000
"""Tokens that are kept in mind, those that were shown last."""


class _Verified(NamedTuple):
    """A token that held at a time, by these keys and revocations."""

    by: weakref.ref[Secrets]
    """Kept by nobody here: keys that are gone are in mind no longer."""
    at: datetime
    claims: DataplaneClaims


class VerifiedTokens:
    """Verifies a token again when any Secret of its mesh is another, its end has come, or the clock was set back.

    What was refused is not kept, nor are tokens themselves: only their digests.
    """

    def __init__(self, validation: Validation) -> None:
        self._validation = validation
        self._known: OrderedDict[tuple[str, bytes], _Verified] = OrderedDict()

    def claims(self, token: str, mesh: str, secrets: Secrets, now: datetime) -> DataplaneClaims:
        """Returns the claims of a token; `secrets` are those of the mesh now, as a view has them.

        Raises:
            Unauthenticated: it does not hold, see `dataplane_tokens.verify_token`.
        """
        shown = mesh, hashlib.sha256(token.encode()).digest()
        known = self._known.pop(shown, None)
        if known is None or known.by() is not secrets or not known.at <= now < known.claims.expires:
            found = dataplane_tokens.verify_token(token, mesh, secrets, now, self._validation)
            known = _Verified(weakref.ref(secrets), now, found)
        self._known[shown] = known
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return known.claims
