"""Decides which step is safe next, and which proxies are waited for. Pure: time is an argument."""
