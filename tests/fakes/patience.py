"""How long tests wait for what should happen: one figure, so that a busy machine makes them slow and never red."""

PATIENCE = 120.0
"""Seconds after which a test gives up: a hundred times what an idle machine takes, and a hang is told soon enough."""
