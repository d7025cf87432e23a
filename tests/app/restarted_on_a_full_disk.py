"""Starts a control plane on a small file system, ends it by a signal, fills the disk, and starts it again.

It has no room for another byte then, and none for another file.
"""

import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

KUMA_CP = Path(sys.executable).with_name("kuma-cp")
SERVERS = ("API_SERVER_HTTP", "API_SERVER_HTTPS", "DP_SERVER", "XDS_SERVER", "DIAGNOSTICS_SERVER")


def run(home: Path, end: int) -> None:
    ports = {f"KUMA_{server}_PORT": "0" for server in SERVERS}
    environment = {"HOME": str(home), "KUMA_GENERAL_LOG_FORMAT": "json", **ports}
    process = subprocess.Popen(
        [KUMA_CP, "run"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if '"event": "ready"' in line:
            process.send_signal(end)
            process.communicate()
            return
    raise SystemExit("".join(said))


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as full:
        while True:
            full.write(bytes(4096))


def use_up_files(directory: Path) -> None:
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (directory / f"file-{number}").touch()


if __name__ == "__main__":
    disk, number = Path(sys.argv[1]), int(sys.argv[2])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=40", "none", disk], check=True)
    run(disk, number)
    fill(disk / "filling")
    use_up_files(disk)
    assert (os.statvfs(disk).f_bavail, os.statvfs(disk).f_favail) == (0, 0)
    run(disk, number)
