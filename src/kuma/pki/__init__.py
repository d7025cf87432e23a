"""Keys, certificates and tokens: authorities that sign, identities that are issued, and when they are replaced."""
