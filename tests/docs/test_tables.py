"""Pages that name tests name tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("conformance.md", "security.md", "weaknesses.md", "transitions.md")


def known_tests() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text()))
    assert named <= known_tests(), named - known_tests()


def test_no_paragraph_is_left_out() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", (ROOT / "docs" / "conformance.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 44))
    assert all("`test_" in tests for _, tests in rows)
