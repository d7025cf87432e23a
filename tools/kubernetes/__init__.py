"""A real Kubernetes API for tests: builds its programs from their Go modules, once for a machine, and starts them."""
