"""Handles `--dataplane-token`, which the original takes: anybody on the machine can read a process's arguments.

So the program starts itself anew with the token in anonymous memory instead, before it does anything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

OPTION, FILE_OPTION = "--dataplane-token", "--dataplane-token-file"
MARK = "KUMA_DP_TOKEN_WAS_AN_ARGUMENT"
"""Tells the program that is started anew what to warn of."""
WARNING = (
    f"{OPTION} was in the list of processes for a moment, where everybody on this machine can read it; "
    f"use {FILE_OPTION}, or the variable KUMA_DATAPLANE_RUNTIME_TOKEN"
)


def split(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Returns the arguments without the token, and the token, which is empty if there is none."""
    rest: list[str] = []
    token, is_value = "", False
    for argument in arguments:
        if is_value:
            token, is_value = argument, False
        elif argument == OPTION:
            is_value = True
        elif argument.startswith(f"{OPTION}="):
            token = argument.removeprefix(f"{OPTION}=")
        else:
            rest.append(argument)
    return rest, token


def hide() -> None:
    """Restarts this program without the token if its arguments contain one; a token file that is named as well wins."""
    rest, token = split(sys.argv[1:])
    if not token:
        return
    if not any(argument == FILE_OPTION or argument.startswith(f"{FILE_OPTION}=") for argument in rest):
        descriptor = os.memfd_create("token", 0)  # 0: the next program inherits it
        os.write(descriptor, token.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        rest.append(f"{FILE_OPTION}=/dev/fd/{descriptor}")
    before = len(sys.orig_argv) - len(sys.argv) + 1  # the interpreter, its options and the program
    os.execve(sys.executable, [*sys.orig_argv[:before], *rest], {**os.environ, MARK: "1"})  # noqa: S606
