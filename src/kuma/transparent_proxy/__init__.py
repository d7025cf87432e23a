"""Redirection of a workload's traffic to its proxy, by the kernel: what the rules are, and installing them."""
