"""Services as their callers see them: members, clusters, endpoints, and how the health of a workload is asked for."""
