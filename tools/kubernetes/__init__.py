"""A real Kubernetes API, with a node that runs Pods, for tests, benchmarks and the demo.

Its programs are built from their Go modules, once for a machine. In the kubelet's place stands `pod_runner`.
"""
