"""Kubernetes: its API as the store, admission by webhooks, and what is installed there."""
