"""Differences between SQL databases, as far as a store needs to know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Traits:
    """Constants of a dialect."""

    unavailable: tuple[type[Exception], ...]
    """Errors of a database that is locked, full or gone."""
    snapshot: dict[str, Any]
    """Execution options under which everything that a connection reads is of one moment."""


class Dialect(Protocol):
    """A kind of SQL database."""

    traits: Traits

    async def begin(self, connection: AsyncConnection) -> bytes | None:
        """Has other writers wait until the end of a transaction, so that revisions show in their order.

        Returns the seal of the store if somebody else may have changed it.
        """
        ...

    async def announce(self, connection: AsyncConnection, revision: int) -> None:
        """Tells the other processes of a revision, once it is committed."""
        ...

    async def begin_reading(self, connection: AsyncConnection) -> None:
        """Has all that is read in several statements be of one moment, where `Traits.snapshot` does not."""
        ...

    async def others(self, connection: AsyncConnection) -> int:
        """Returns how many other processes use the store, too."""
        ...

    async def scrub(self) -> None:
        """Leaves no earlier content in the files of the database.

        Raises:
            Unavailable: it is in use; to be tried again.
        """
        ...


def reason(error: BaseException) -> str:
    """Says why a database cannot be used: without the statement, and what was to be stored by it."""
    if isinstance(error, DBAPIError):
        error = (error.orig and error.orig.__cause__) or error.orig or error
    return str(error) or type(error).__name__
