"""Generates Envoy configuration from a mesh view. Pure, so that equal views give equal bytes."""
