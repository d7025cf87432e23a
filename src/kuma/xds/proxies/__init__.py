"""Connected proxies: what each should run, its leaf, its insight, and whether callers are sent to it."""
