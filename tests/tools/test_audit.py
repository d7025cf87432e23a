"""An audit that could look nothing up does not pass for one that found nothing."""

from typing import Any

import pytest

from tools.audit import verdict

GOOD: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}
BAD: dict[str, Any] = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1"}]}
SKIPPED: dict[str, Any] = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("found", "text", "failed"),
    [
        ([], "NOT AUDITED: the data", False),
        ([SKIPPED], "NOT AUDITED: the data", False),
        ([GOOD], "1 packages audited, no known vulnerability", False),
        ([GOOD, SKIPPED], "no known vulnerability; NOT AUDITED: c", False),
        ([GOOD, BAD, SKIPPED], "vulnerable: b 2: CVE-1", True),
    ],
)
def test_what_is_said(found: list[dict[str, Any]], text: str, failed: bool) -> None:
    said, is_failure = verdict(found)
    assert text in said
    assert is_failure is failed
