"""Takes in what proxies report of their callers, and keeps it as counters."""
