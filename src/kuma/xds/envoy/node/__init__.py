"""One Envoy as it starts: its bootstrap, what it says of itself, and what its version can take."""
