"""The Kubernetes API of the tests is built once for a machine: what is there is used without a word."""

from pathlib import Path

import pytest

from tools.kubernetes import build


def test_what_has_been_built_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = build.cache() / build.digest()
    built.mkdir(parents=True)
    for program in build.KIT.programs:
        (built / program).touch()
    said: list[str] = []
    assert build.binaries(say=said.append) == built
    assert said == []


def test_what_it_is_built_from_decides_where_it_is() -> None:
    assert build.digest() == build.digest()
    assert {file.name for file in build.KIT.directory.iterdir()} == {"cmd", "go.mod", "go.sum"}
