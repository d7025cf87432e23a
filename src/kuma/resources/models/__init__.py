"""Models of the kinds: what each of them says, and which mistakes in it are told."""
