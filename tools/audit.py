"""Runs pip-audit over what is installed, and says in one line how much of it could be looked up.

pip-audit ends well when it has found nothing because it could look nothing up. That is said here, and is no failure:
without a network there is nothing to compare with. A vulnerability that is found fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_COMMAND = ("-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json")


def verdict(dependencies: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Returns a verdict on the findings, and whether they are a failure."""
    audited = [found for found in dependencies if "vulns" in found]
    bad = [f"{found['name']} {found['version']}: {vuln['id']}" for found in audited for vuln in found["vulns"]]
    if bad:
        return "vulnerable: " + "; ".join(bad), True
    if not audited:
        return "NOT AUDITED: the data on vulnerabilities is not reachable from here", False
    skipped = sorted(found["name"] for found in dependencies if "vulns" not in found)
    note = f"; NOT AUDITED: {', '.join(skipped)}" if skipped else ""
    return f"{len(audited)} packages audited, no known vulnerability{note}", False


def main() -> int:
    """Audit, print, and return the exit code."""
    done = subprocess.run([sys.executable, *_COMMAND], capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        dependencies = []
    text, failed = verdict(dependencies)
    print(f"pip-audit: {text}", file=sys.stderr if failed else sys.stdout)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
