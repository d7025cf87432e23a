"""Runs one worker: `python -m kuma.app.workers SHARE`, as `sharing` starts it."""

from __future__ import annotations

from kuma.app import start

start.worker()
