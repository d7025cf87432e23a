"""No test gives up after a time that a busy machine may take: limits are `PATIENCE`, or longer."""

import re
from pathlib import Path

from tests.fakes.patience import PATIENCE

TESTS = Path(__file__).resolve().parents[1]
LIMIT = re.compile(r"(?:(?<!-)\btimeout=|asyncio\.timeout\()(\d+(?:\.\d+)?)\b")


def test_no_limit_is_shorter_than_patience() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{number}: {line.strip()}"
        for path in sorted(TESTS.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for limit in LIMIT.findall(line)
        if float(limit) < PATIENCE
    ]
    assert not found, found
