"""What demo, benchmarks and tools need of tests is in the places that are made for it, so that a test can move."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("tests.fakes", "tests.integration.sidecars")
IMPORT = re.compile(r"^\s*(?:from|import) (tests\b[\w.]*)", re.MULTILINE)


def test_only_what_is_shared_is_imported_from_tests() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for folder in ("benchmarks", "demo", "deploy", "soak", "src", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for module in IMPORT.findall(path.read_text())
        if not module.startswith(SHARED)
    ]
    assert not found, found
