"""Programs that `make` runs, and what tests, benchmarks and the demo share: hosts, a browser, a Kubernetes API."""
