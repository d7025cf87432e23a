"""The audit record: what others write into it stays in its line, and commands no terminal of whoever looks at it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kuma.base.audit import AuditFile
from kuma.base.errors import Misconfigured
from tests.fakes.clock import ManualClock


def test_what_is_recorded_stays_in_its_line_and_commands_no_terminal(tmp_path: Path) -> None:
    path = "/meshes/\x1b[31m\x9b2J\u202egnp\u2028\n{}\x7f é"
    audit = AuditFile(tmp_path / "audit.jsonl", ManualClock())
    audit.record("refused", path=path)
    audit.close()
    text = (tmp_path / "audit.jsonl").read_text()
    assert text.removesuffix("\n").isprintable()
    assert json.loads(text)["path"] == path
    assert "é" in text


def test_a_pipe_in_the_place_of_the_record_keeps_nothing_waiting(tmp_path: Path) -> None:
    """Neither one that nobody reads, nor one that nobody reads from any more."""
    path = tmp_path / "audit.jsonl"
    os.mkfifo(path)
    with pytest.raises(Misconfigured, match="cannot write the audit record"):
        AuditFile(path, ManualClock())
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    audit = AuditFile(path, ManualClock())
    with capture_logs() as logs:
        for _ in range(1000):
            audit.record("refused", path="x" * 1000)
    audit.close()
    os.close(reader)
    assert logs and logs[0]["event"] == "not in the audit record"
