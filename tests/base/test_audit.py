"""The audit record: what others write into it stays in its line, and commands no terminal of whoever looks at it."""

from __future__ import annotations

import json
from pathlib import Path

from kuma.base.audit import AuditFile
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
