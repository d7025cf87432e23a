"""Pages that name tests name tests that exist; the tables of conformance and of weaknesses leave nothing out."""

import re
from pathlib import Path

import pytest

from kuma.resources import limits
from tests.docs.reference import BLOCKS, blocks, digest

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "reference" / "mutual-tls.txt"
PAGES = ("conformance.md", "security.md", "weaknesses.md", "transitions.md", "hostile-tries.md")
WEAKNESSES = (
    *range(2, 8), *range(13, 21), *range(22, 28), 29, *range(31, 38), *range(40, 43), *range(45, 50), *range(51, 55),
)  # fmt: skip
"""The ones of the original's that must not exist here."""


def known_tests() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= set(re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


def table(page: str) -> dict[int, tuple[str, set[str]]]:
    """The numbered rows of a page: what they say, and the tests that they name. No number stands there twice."""
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.*)\|$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    assert len({number for number, _, _ in rows}) == len(rows)
    return {int(number): (text, set(re.findall(r"`(test_\w+)`", tests))) for number, text, tests in rows}


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text()))
    assert named <= known_tests(), named - known_tests()


def test_no_paragraph_of_the_documentation_is_left_out() -> None:
    rows = table("conformance.md")
    assert list(rows) == list(range(1, len(rows) + 1)), "in the order of the documentation"
    without = {block.words: block.rows for block in BLOCKS if not block.rows or not rows.keys() >= set(block.rows)}
    assert not without, "these have no row"
    covering = {row for block in BLOCKS for row in block.rows}
    assert not rows.keys() - covering, "these rows cover nothing"
    order = list(dict.fromkeys(row for block in BLOCKS for row in block.rows))
    assert order == list(rows), "rows stand in the order of what they cover"
    assert not [number for number, (_, tests) in rows.items() if not tests & known_tests()], "these have no test"


def test_the_documentation_is_the_one_that_the_rows_were_written_for() -> None:
    """Where the documentation itself is at hand, all of it is on the list; the list is sound in any case."""
    assert len(BLOCKS) == 71
    assert all(re.fullmatch(r"[0-9a-f]{64}", block.sha256) and len(block.words.split()) <= 5 for block in BLOCKS)
    if REFERENCE.exists():
        text = blocks(REFERENCE.read_text())
        assert [digest(block) for block in text] == [block.sha256 for block in BLOCKS]
        assert all(" ".join(b.split()).startswith(k.words) for b, k in zip(text, BLOCKS, strict=True))


@pytest.mark.parametrize("number", WEAKNESSES)
def test_no_weakness_of_the_original_is_left_out(number: int) -> None:
    """Each has a test that exists, or a sentence on why it does not apply."""
    rows = table("weaknesses.md")
    assert number in rows
    text, tests = rows[number]
    assert tests & known_tests() or "does not apply" in text
    assert tests <= known_tests()


def test_every_limit_is_documented() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    for kind, most in limits.MOST.items():
        for path, number in most.items():
            shown = "512 KiB" if number > limits.LARGEST_SECRET else f"| {number:,} "
            assert shown in page, (kind, path)
