"""Staged rollouts: moves meshes towards the mutual TLS they declare, one safe step at a time."""
