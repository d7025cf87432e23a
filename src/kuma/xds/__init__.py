"""Envoy's configuration: what each proxy should run, and the delta discovery protocol that brings it there."""
