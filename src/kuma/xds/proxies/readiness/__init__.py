"""Whether callers are sent to a proxy, by what it and its workload say; written into its Dataplane."""
