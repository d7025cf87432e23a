"""The store over the Kubernetes API: reads, transactions of several objects, and one watch over all kinds."""
