"""Reads from the administration of connected Envoys, over mutual TLS where they are on other machines."""
