"""The system's name service: /etc/hosts, DNS, and whatever else the machine is told to ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""A host name -> its addresses, in the order of preference. Raises `OSError` if there is none."""
_SECONDS = 5.0
"""How long an answer is waited for."""


async def resolve(name: str) -> Sequence[str]:
    """Returns the addresses of a host.

    Raises:
        OSError: there is none, or nobody answers.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise OSError(f"no answer within {_SECONDS:.0f} seconds") from None
    except UnicodeError:
        raise OSError("is no host name") from None
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found if "%" not in str(address[0])))
