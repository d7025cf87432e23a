"""Leaves of connected proxies: issued, counted, and replaced in time."""
