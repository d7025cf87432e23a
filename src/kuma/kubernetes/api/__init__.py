"""The Kubernetes API as a client sees it: credentials, requests, watches. Nothing of Kuma."""
