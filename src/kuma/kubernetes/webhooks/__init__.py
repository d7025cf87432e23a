"""Admission of what kubectl and others write: the rules of the REST API, asked by the Kubernetes API."""
