"""Certificates that the control plane needs for itself: small CAs, and what they issue. Nothing here is of a mesh."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from kuma.pki.x509 import BACKDATED, CaPair, usage


def new_ca(name: x509.Name, now: datetime, lifetime: timedelta) -> CaPair:
    """Returns a self-signed CA that issues leaves only."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(name, name, key.public_key(), now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(key, hashes.SHA256())
    )
    return CaPair(made, key)


def issue(
    ca: CaPair,
    subject: x509.Name,
    names: x509.SubjectAlternativeName,
    purpose: x509.ObjectIdentifier,
    now: datetime,
    end: datetime,
) -> CaPair:
    """Returns a certificate with a new key; it ends at `end`, or with its CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(end, ca.certificate.not_valid_after_utc)
    made = (
        _builder(ca.certificate.subject, subject, key.public_key(), now, ends)
        .add_extension(names, critical=not list(subject))
        .add_extension(usage("digital_signature"), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    return CaPair(made, key)


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    serial = x509.random_serial_number()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    return x509.CertificateBuilder(issuer, subject, key, serial, now - BACKDATED, end).add_extension(identifier, False)


def names(hosts: Iterable[str]) -> x509.SubjectAlternativeName:
    """Returns the names and addresses of a certificate, each once."""
    return x509.SubjectAlternativeName([_san(host) for host in dict.fromkeys(hosts)])


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
