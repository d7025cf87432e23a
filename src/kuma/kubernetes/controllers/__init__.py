"""Controllers: what follows from objects that others write."""
