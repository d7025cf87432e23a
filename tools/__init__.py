"""What `make` runs of its own."""
