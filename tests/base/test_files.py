"""Files that are replaced at once."""

import os
import stat
from pathlib import Path

import pytest

from kuma.base import files


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o666)
    (tmp_path / ".key.new").write_text("what a crash has left")
    before = os.umask(0o022)
    try:
        files.replace(path, b"new", mode=mode)
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.replace(tmp_path / "key", b"new")
    assert (tmp_path / "key").is_dir()
