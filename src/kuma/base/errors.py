"""The error tree. A class exists only where somebody catches it.

::

    KumaError
    ├── InvalidResource      the request's content breaks rules; carries every violation
    │   └── NotForUs         it is well formed, and for another system
    ├── NotFound             no such resource
    │   └── NoSigningKey     no key that tokens could be issued with
    ├── AlreadyExists        create over an existing resource
    ├── Conflict             the stored version is not the one the caller has read
    ├── Unauthenticated      a credential is missing or does not hold
    ├── AccessDenied         a known caller may not do this
    ├── Unavailable          what is needed for an answer does not answer itself; later it may
    ├── StoreCorrupt         stored bytes cannot be opened or understood
    └── Misconfigured        the program cannot start with these settings
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice


class KumaError(Exception):
    """Base of all errors whose text is meant for a person."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: `field` is the JSON path as the user wrote it, `reason` says what is wrong and the remedy."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


_MOST = 100
"""Violations that are told: an answer has to be no longer than what it answers."""


class InvalidResource(KumaError):
    """Content that breaks rules. Nothing was changed."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        found = tuple(islice(violations, _MOST + 1))
        more = (Violation("", f"and more: these are the first {_MOST}"),) if len(found) > _MOST else ()
        self.violations = (*found[:_MOST], *more)
        super().__init__("; ".join(str(violation) for violation in self.violations))

    @classmethod
    def of(cls, field: str, reason: str) -> InvalidResource:
        """The common case of a single violation."""
        return cls([Violation(field, reason)])


class WeakeningRefused(InvalidResource):
    """A change that would weaken a mesh that refuses that unless it is asked for."""


class NotForUs(InvalidResource):
    """A document that is well formed, and for another system: it can be left out of a file with resources of ours."""


class NotFound(KumaError):
    """The named resource does not exist."""


class NoSigningKey(NotFound):
    """Raised when there is no key to issue tokens with; the text names the Secret that is missing."""


class AlreadyExists(KumaError):
    """A resource of that kind, mesh and name exists."""


class Conflict(KumaError):
    """Somebody else has written the resource since it was read."""


class Unauthenticated(KumaError):
    """A credential is missing, expired, revoked or forged."""


class AccessDenied(KumaError):
    """The caller is known and may not do this."""


class Unavailable(KumaError):
    """Something that is asked does not answer; the text says what was tried."""


class StoreCorrupt(KumaError):
    """Stored bytes cannot be opened (wrong key-encryption key) or understood."""


class Misconfigured(KumaError):
    """The program cannot start with these settings; the text names the setting and the remedy."""


class ComponentFailed(Exception):
    """A component that should not end has ended. `causes` has the errors of all that failed at the same instant."""

    def __init__(self, text: str, causes: Sequence[BaseException] = ()) -> None:
        super().__init__(text)
        self.causes = tuple(causes)
