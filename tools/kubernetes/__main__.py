"""Builds the programs of the Kubernetes API, and helm, or waits for whoever is building them; prints where they are."""

from __future__ import annotations

import os
import sys

from tools.kubernetes.build import HELM, KIT, BuildFailed, binaries


def main() -> int:
    """Build, print, and return the exit code."""
    os.nice(10)
    try:
        for module in (KIT, HELM):
            print(binaries(module))
    except BuildFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
