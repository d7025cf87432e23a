"""Figures, printed beside the machine's own limits: `make bench`."""
