"""Control planes over one store: who is there, who leads, and what each knows of its own proxies."""
