"""The control plane's HTTP servers: the REST API, bootstraps for proxies, metrics and health."""
