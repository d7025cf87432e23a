"""Says when the worker threads of an Envoy have applied what the Envoy has acknowledged."""

from datetime import timedelta

APPLIED_WITHIN = timedelta(milliseconds=500)
"""The time from an acknowledgement after which each worker thread is taken to run what was acknowledged.

Envoy's main thread acknowledges once it has posted the change to its workers, and nothing that Envoy tells says when
they have taken it up. That takes well below a millisecond when a core is free, and some hundred where many processes
compete for each core.
"""
