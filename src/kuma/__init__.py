"""Kuma's mutual TLS: a control plane, a data plane launcher and a command line client."""

__version__ = "0.1.0"
