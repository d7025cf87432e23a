"""The sidecar of a Pod: whether it gets one, and what the Pod becomes. Pure: nothing here asks a cluster."""
