"""The servers that a control plane opens, the certificate they show, and the CAs of their clients."""
