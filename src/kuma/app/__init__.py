"""The composition root, its settings, the servers it starts, and the entry points of the commands."""
