"""Passes on what Envoy logs, so that Envoy never waits for whoever reads it.

Envoy writes its log to standard error in the thread that serves, and a pipe that nobody reads holds that up; one that
does not hold it up silences it for good. To a file (`--log-path`) a thread of its own writes, for which lines wait in
memory. So its file is a pipe to this process, which waits for nobody either: see `kuma.base.logs.Output`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Sequence

from kuma.base.logs import STANDARD_ERROR, Output

_PIECE = 1 << 16
_LATEST = 250
"""Milliseconds that Envoy may keep a line; one that is critical, it does not keep."""


class EnvoyLog:
    """The log of one Envoy, from before it begins until it has ended."""

    def __init__(self, output: Output = STANDARD_ERROR) -> None:
        self._output = output
        self._begun = b""
        """A line whose end has not come yet."""

    def __enter__(self) -> EnvoyLog:
        self._read, self.descriptor = os.pipe()
        os.set_blocking(self._read, False)
        asyncio.get_running_loop().add_reader(self._read, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read)
        self.handed_over()
        while select.select([self._read], [], [], 0)[0] and self._pass_on():
            pass
        self._output.pass_on(self._begun)
        os.close(self._read)

    @property
    def options(self) -> Sequence[str]:
        """Options by which Envoy writes there, if it has inherited `descriptor`."""
        return "--log-path", f"/dev/fd/{self.descriptor}", "--file-flush-interval-msec", str(_LATEST)

    def handed_over(self) -> None:
        """Closes what Envoy alone is to write to, so that its end is seen."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _pass_on(self) -> bool:
        """Passes on whole lines of what there is; False at its end."""
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._read, _PIECE)
            if not piece:
                asyncio.get_running_loop().remove_reader(self._read)
                return False
            lines, ends, begun = (self._begun + piece).rpartition(b"\n")
            if len(begun) > _PIECE:
                lines, ends, begun = lines + ends, begun, b""
            self._output.pass_on(lines + ends)
            self._begun = begun
        return True
