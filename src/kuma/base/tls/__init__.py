"""What the TLS of clients and servers has in common: private keys, the certificate that is shown, and why a handshake failed."""
