"""Signing keys, and the tokens by which proxies and people prove who they are."""
