"""Builds what is released, and tries it out where the sources are not.

Usage: python -m tools.release [DIRECTORY]
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PIP = (sys.executable, "-m", "pip")
PROGRAMS = ("kuma-cp", "kuma-dp", "kumactl")


class NotReleasable(Exception):
    """Something keeps this from being released; the text says what, and what to do."""


def version(root: Path = ROOT) -> str:
    """Returns the version that is released."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def check_changelog(text: str, released: str) -> None:
    """See that the changelog begins with the version.

    Raises:
        NotReleasable: it does not.
    """
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    if not headings or headings[0].split()[0] != released:
        raise NotReleasable(
            f'CHANGELOG.md begins with "{headings[0] if headings else ""}" and not with "{released}": '
            "give what is unreleased this version and a date, or change the version in pyproject.toml"
        )


def build(target: Path, root: Path = ROOT) -> Path:
    """Builds an sdist and, from it, a wheel in `target`; returns the wheel."""
    _run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", target], root)
    (sdist,) = target.glob(f"*-{version(root)}.tar.gz")
    _run([*_PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target, sdist])
    (wheel,) = target.glob(f"*-{version(root)}-*.whl")
    return wheel


def write_sums(target: Path, released: str) -> Path:
    """Writes the SHA-256 of what `build` has made beside it, as `sha256sum --check` reads them."""
    built = sorted(path for path in target.glob(f"*-{released}*") if path.suffix in (".gz", ".whl"))
    sums = target / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in built))
    return sums


def missing_from(wheel: Path, root: Path = ROOT) -> Sequence[str]:
    """Returns the files of the package that are not in a wheel."""
    package = root / "src"
    wanted = {str(path.relative_to(package)) for path in (package / "kuma").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        return sorted(name for name in wanted - set(archive.namelist()) if "__pycache__" not in name)


def try_out(wheel: Path) -> None:
    """Installs a wheel into an empty environment, and runs its programs there."""
    with tempfile.TemporaryDirectory() as scratch:
        python = _environment(Path(scratch))
        _run([python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel])
        for program in PROGRAMS:
            _run([python.parent / program, "--help"], Path(scratch))
        _run([python.parent / "kuma-cp", "migrate", "up"], Path(scratch), KUMA_GENERAL_WORK_DIR=f"{scratch}/cp")


def _environment(directory: Path) -> Path:
    venv.create(directory / "venv", with_pip=True)
    return directory / "venv" / "bin" / "python"


def _run(command: Sequence[str | Path], directory: Path | None = None, **environment: str) -> None:
    subprocess.run([str(part) for part in command], cwd=directory, env={**os.environ, **environment}, check=True)


def main(arguments: Sequence[str]) -> int:
    """Build and try out, and return the exit code."""
    try:
        check_changelog((ROOT / "CHANGELOG.md").read_text(), version())
        wheel = build(Path(arguments[0]) if arguments else ROOT / "dist")
        if missing := missing_from(wheel):
            raise NotReleasable(f"not in {wheel.name}: {', '.join(missing)}")
        try_out(wheel)
        sums = write_sums(wheel.parent, version())
    except (NotReleasable, subprocess.CalledProcessError) as error:
        print(f"not released: {error}", file=sys.stderr)
        return 1
    print(f"{wheel} and its sdist hold ({sums}); put a tag on this commit: v{version()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
