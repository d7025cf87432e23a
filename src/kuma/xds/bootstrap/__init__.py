"""Answers bootstrap requests: what an Envoy needs to reach this control plane."""
