"""Files that are replaced at once, and files that somebody else may have put something else in the place of."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

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


@pytest.mark.parametrize("what", ["a pipe", "a directory", "a device", "a link to a device", "a large file", "nothing"])
def test_whatever_is_where_a_file_was_keeps_nothing_waiting(tmp_path: Path, what: str) -> None:
    path = tmp_path / "tls.key"
    make: dict[str, Callable[[], object]] = {
        "a pipe": lambda: os.mkfifo(path),
        "a directory": path.mkdir,
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a link to a device": lambda: path.symlink_to("/dev/full"),
        "a large file": lambda: path.write_bytes(b"x" * (2 << 20)),
        "nothing": lambda: None,
    }
    make[what]()
    with pytest.raises(OSError):
        files.content(path)


def test_a_file_is_read_also_where_links_lead_to_it(tmp_path: Path) -> None:
    """As those of Kubernetes' volumes are."""
    (tmp_path / "a").write_bytes(b"key")
    (tmp_path / "b").symlink_to("a")
    assert files.content(tmp_path / "b") == b"key"


def test_a_key_that_others_can_read_or_have_is_told(tmp_path: Path) -> None:
    key = tmp_path / "tls.key"
    key.write_bytes(b"key")
    for mode, told in ((0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)):
        key.chmod(mode)
        with capture_logs() as logs:
            files.warn_of_readers(key)
        assert len(logs) == told, oct(mode)
    key.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(key, 4711, -1)
        with capture_logs() as logs:
            files.warn_of_readers(key)
        assert [line["user"] for line in logs] == [4711]
