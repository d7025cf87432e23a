"""TLS of clients and servers: private keys, the certificate that is shown, and why a handshake failed."""
