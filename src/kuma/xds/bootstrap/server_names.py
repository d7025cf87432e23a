"""Checks that an Envoy can verify this control plane by the name and the CA that its kuma-dp knows it by."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from kuma.base.errors import KumaError
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.pem import readable


class Unverifiable(KumaError):
    """An Envoy with this bootstrap would never trust its control plane."""


@dataclass(frozen=True, slots=True)
class ServerNames:
    """Names in the control plane's certificate, and the CA that verifies it unless the caller has another."""

    names: tuple[str, ...]
    ca_pem: bytes

    @classmethod
    def of(cls, chain_pem: bytes, ca_pem: bytes) -> ServerNames:
        """Returns the names in the first certificate of a chain."""
        extensions = x509.load_pem_x509_certificates(chain_pem)[0].extensions
        try:
            found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return cls((), ca_pem)
        addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
        return cls((*found.get_values_for_type(x509.DNSName), *addresses), ca_pem)

    def ca_for(self, host: str, given: bytes) -> bytes:
        """Returns the CA by which the control plane, called `host`, is verified: the given one, if there is one.

        Raises:
            Unverifiable: the certificate has no such name, or what is given is no CA's certificate.
        """
        if not any(_is(host, name) for name in self.names):
            raise Unverifiable(
                f'this control plane was reached as "{host}", but its certificate is for {", ".join(self.names)} only: '
                "the proxy would not trust it. Call it by one of these names (--cp-address), or add the name to "
                "KUMA_GENERAL_HOSTNAMES or to the certificate in KUMA_GENERAL_TLS_CERT_FILE"
            )
        ca_pem = given or self.ca_pem
        if not any(_is_ca(certificate) for certificate in _certificates(ca_pem)):
            whose = "caCert (--ca-cert-file)" if given else "the control plane's own CA (KUMA_GENERAL_TLS_CA_FILE)"
            raise Unverifiable(f"{whose} holds no certificate of a CA, in PEM, so nothing can be verified by it")
        return ca_pem


def _is(host: str, name: str) -> bool:
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(name)
    except ValueError:
        pass
    first, dot, rest = host.lower().partition(".")
    return host.lower() == name.lower() or bool(first and dot and f"*.{rest}" == name.lower())


def _certificates(pem: bytes) -> Sequence[x509.Certificate]:
    try:
        with readable(""):
            return x509.load_pem_x509_certificates(pem)
    except AuthorityUnusable:
        return ()


def _is_ca(certificate: x509.Certificate) -> bool:
    """Tells whether a certificate is a CA's; one that cannot be read is not, though others of the file may be."""
    try:
        with readable(""):
            return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except AuthorityUnusable:
        return False
