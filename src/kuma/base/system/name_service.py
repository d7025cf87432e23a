"""The system's name service: /etc/hosts, DNS, and whatever else the machine is told to ask."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""A host name -> its addresses, in the order of preference. Raises `OSError` if there is none."""
Ask = Callable[[str], Sequence[str]]
"""The same, and blocks until there is an answer."""
Answer = Sequence[str] | Exception
_SECONDS = 5.0
"""How long an answer is waited for."""
_AT_ONCE = 8
"""Questions that are not answered. The system has no way to take one back: each holds a thread until it gives up."""


def ask(name: str) -> Sequence[str]:
    """Returns the addresses of a host, by the system's own means.

    Raises:
        OSError, UnicodeError: there is none.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found if "%" not in str(address[0])))


class NameService:
    """Asks in threads of its own, so that names which are never answered keep nothing else from a thread.

    The threads end with the process, answered or not.
    """

    def __init__(self, ask: Ask = ask, seconds: float = _SECONDS, at_once: int = _AT_ONCE) -> None:
        """`seconds` is how long an answer is waited for, and `at_once` how many questions may be open."""
        self._ask = ask
        self._seconds = seconds
        self._free = asyncio.Semaphore(at_once)
        self._open: dict[str, asyncio.Future[Answer]] = {}

    async def resolve(self, name: str) -> Sequence[str]:
        """Returns the addresses of a host.

        Raises:
            TimeoutError: nobody answers.
            OSError: there is none.
        """
        if name not in self._open:
            await self._begin(name)
        try:
            async with asyncio.timeout(self._seconds):
                answer = await asyncio.shield(self._open[name])
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._seconds:g} seconds") from None
        if isinstance(answer, UnicodeError):
            raise OSError("is no host name")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _begin(self, name: str) -> None:
        """Asks, once there is a thread for it."""
        await self._free.acquire()
        if name in self._open:  # somebody else was faster
            self._free.release()
            return
        loop = asyncio.get_running_loop()
        self._open[name] = loop.create_future()

        def work() -> None:
            try:
                answer: Answer = self._ask(name)
            except Exception as error:
                answer = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(self._answered, name, answer)

        threading.Thread(target=work, name=f"name service: {name}", daemon=True).start()

    def _answered(self, name: str, answer: Answer) -> None:
        self._open.pop(name).set_result(answer)
        self._free.release()
