"""No test gives up after a time that a busy machine may take: limits are `PATIENCE`, or longer."""

import re
from pathlib import Path

from tests.fakes.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("tests", *(f"tools/{name}.py" for name in ("hosts", "browser", "kubernetes/installed", "kubernetes/node")))
LIMIT = re.compile(r"(?:(?<!-)\btimeout=|asyncio\.timeout\()(\d+(?:\.\d+)?)\b")


def test_no_limit_is_shorter_than_patience() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(path for place in PLACES for path in _modules(ROOT / place))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for limit in LIMIT.findall(line)
        if float(limit) < PATIENCE
    ]
    assert not found, found


def _modules(place: Path) -> list[Path]:
    return [place] if place.is_file() else list(place.rglob("*.py"))
