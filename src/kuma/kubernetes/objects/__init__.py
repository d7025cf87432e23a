"""Resources as objects of the Kubernetes API: their paths, their content, and the definitions of their kinds."""
