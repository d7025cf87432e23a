"""Generates listeners and their routes: what a proxy accepts from callers, and what it offers to its workload."""
