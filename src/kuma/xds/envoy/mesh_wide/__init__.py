"""What is derived once from a mesh view, for all proxies of the mesh: what stands in leaves, logs and metrics."""
