"""Installs the Debian packages that tests need, besides what pip installs; says what it does.

Usage: python -m tools.packages
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

PACKAGES: Mapping[str, str] = {
    "chromium": "pages of the console in a real browser",
    "fish": "completion of kumactl's commands in that shell",
    "haproxy": "a load balancer in front of control planes",
    "curl": "workloads that call others as they always have",
    "iproute2": "network namespaces: hosts and Pods of their own",
    "libfaketime": "control planes whose clocks differ",
    "nftables": "transparent proxying",
    "nginx-light": "a reverse proxy in front of the API",
    "prometheus": "promtool, which checks and runs the alert rules",
    "systemd": "systemd-analyze, which checks units",
    "zsh": "completion of kumactl's commands in that shell",
}
"""Each with what it is for."""
_NOT_ASKED = {"DEBIAN_FRONTEND": "noninteractive"}


def missing() -> list[str]:
    """Returns the packages that are not installed; all of them on a machine that is no Debian."""
    return [name for name in PACKAGES if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        done = subprocess.run(["dpkg-query", "-W", "-f=${Status}", name], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return done.stdout.endswith(" installed")


def main() -> int:
    """Install what is missing, and return the exit code."""
    wanted = missing()
    if not wanted:
        return 0
    for name in wanted:
        print(f"installing the Debian package {name}: {PACKAGES[name]}", flush=True)
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    try:
        _apt([*as_root, "apt-get", "update", "-q"])
        _apt([*as_root, "apt-get", "install", "-q", "-y", "--no-install-recommends", *wanted])
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"cannot install {', '.join(wanted)}: {error}; install them by other means", file=sys.stderr)
        return 1
    return 0


def _apt(command: Sequence[str]) -> None:
    subprocess.run(command, env={**os.environ, **_NOT_ASKED}, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
