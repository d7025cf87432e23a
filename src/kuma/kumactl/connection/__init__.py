"""The way to a control plane: which one is meant, the connection to it, and its API as kumactl uses it."""
