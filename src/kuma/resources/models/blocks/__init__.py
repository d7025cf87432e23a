"""Blocks that kinds are made of: what a Mesh or a Dataplane says in them, and which mistakes are told."""
