"""Derives answers of the API from stored resources. Pure: no store, no time of its own."""
