"""The paths of the REST API and of the bootstrap server."""
