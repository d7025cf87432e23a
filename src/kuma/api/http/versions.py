"""Tells clients which version this is."""

from __future__ import annotations

import kuma

VERSION = f"{kuma.__version__}-preview"
"""What clients are told. Those of the original warn of every version but their own, and of none that says `preview`."""
