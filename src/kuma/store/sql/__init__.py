"""Stores over SQL databases: what all have in common, and what each dialect does in its own way."""
