"""Decides who may call whom. Pure functions over resources: no I/O, no Envoy, no certificates."""
