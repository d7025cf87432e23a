"""Encryption of what is stored: sealing under a key-encryption key, and the file that holds it."""
