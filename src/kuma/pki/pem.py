"""Certificates and keys that others have made, read from PEM. Whatever is wrong with them is `AuthorityUnusable`.

A certificate is read as a whole here, its key and extensions too, which the library does only when they are asked for:
what has passed can be looked at anywhere without surprises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryptography import x509

from kuma.base.tls import private_keys
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.x509 import PrivateKey

NO_PAIR = "not a valid TLS key pair: "
"""How all complaints begin that are about certificate and key together; the rest is worded as in Go's crypto/tls."""
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATES = (b"CERTIFICATE", b"X509 CERTIFICATE")
_KEY = b"PRIVATE KEY"
LONGEST_CHAIN = 10
"""Certificates from a CA up to its root. Public CAs have two or three; every Envoy is sent all of them."""
LARGEST_CERTIFICATE = 16 * 1024
"""Characters of one certificate in PEM; of one with the largest key and signature there are 4,000."""


class DamagedCertificate(AuthorityUnusable):
    """Raised when one certificate of a chain cannot be read; `index` is its place."""

    def __init__(self, index: int, text: str) -> None:
        super().__init__(text)
        self.index = index


@contextmanager
def readable(complaint: str) -> Iterator[None]:
    """Surrounds work with something foreign; whatever the library cannot do with it is an `AuthorityUnusable`.

    The library's errors have no base of their own: `ValueError`, `UnsupportedAlgorithm`, `DuplicateExtension`,
    `UnsupportedGeneralNameType`, `InvalidVersion` and more, by what is odd about the input.
    """
    try:
        yield
    except AuthorityUnusable:
        raise
    except Exception as error:
        raise AuthorityUnusable(f"{complaint}: {_words(error)}") from None


def _words(error: Exception) -> str:
    """Returns the library's message as far as it is for people, cut short because it may quote what was read."""
    text = str(error.args[0] if error.args else type(error).__name__).partition("ParseError")[0]
    return " ".join(text.split()).rstrip(" :")[:120]


def read_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Returns the certificates in `pem`, in their order; at least one.

    Raises:
        AuthorityUnusable: there is none, there are too many, or, as `DamagedCertificate`, one cannot be read.
    """
    blocks = list(_blocks(pem))
    found = [block for label, block in blocks if label in _CERTIFICATES]
    if len(found) > LONGEST_CHAIN:  # before any of them is read
        raise AuthorityUnusable(
            f"{NO_PAIR}tls: {len(found)} certificates in certificate input; {LONGEST_CHAIN} are the most. "
            "Leave out those that do not lead from the CA to its root"
        )
    if (longest := max(map(len, found), default=0)) > LARGEST_CERTIFICATE:
        raise AuthorityUnusable(
            f"{NO_PAIR}tls: a certificate of {longest:,} characters in certificate input; {LARGEST_CERTIFICATE:,} are "
            "the most"
        )
    if not found:
        raise AuthorityUnusable(NO_PAIR + _nothing("certificate", [label for label, _ in blocks]))
    return tuple(dict.fromkeys(_certificate(index, block) for index, block in enumerate(found)))  # a copy says nothing


def _certificate(index: int, pem: bytes) -> x509.Certificate:
    try:
        with readable(_NO_CERTIFICATE), _in_own_words(pem):
            found = x509.load_pem_x509_certificate(pem)
            _look_at(found)
            return found
    except AuthorityUnusable as error:
        raise DamagedCertificate(index, str(error)) from None


def _look_at(certificate: x509.Certificate) -> object:
    """Have the library read everything that anybody asks for later."""
    return (
        certificate.public_key(),
        list(certificate.extensions),
        certificate.subject == certificate.issuer,
        certificate.not_valid_before_utc < certificate.not_valid_after_utc,
        certificate.signature_hash_algorithm,
    )


def read_key(pem: bytes) -> PrivateKey:
    """Returns the first private key in `pem`.

    Raises:
        AuthorityUnusable: there is none of a kind that can be used.
    """
    blocks = list(_blocks(pem))
    block = next((block for label, block in blocks if label.endswith(_KEY)), None)
    if block is None:
        raise AuthorityUnusable(NO_PAIR + _nothing("key", [label for label, _ in blocks]))
    try:
        key = private_keys.load(block)
    except private_keys.TooLarge as error:
        raise AuthorityUnusable(f"{NO_PAIR}tls: {error}") from None
    except private_keys.UnusableKey:
        reason = _mangled(block) or "has to be an unencrypted one in PEM"
        raise AuthorityUnusable(f"{NO_PAIR}tls: failed to parse private key; it {reason}") from None
    if not isinstance(key, PrivateKey):
        raise AuthorityUnusable(f"{NO_PAIR}tls: found unknown private key type; has to be RSA, ECDSA or Ed25519")
    return key


def check_pair(certificate: x509.Certificate, key: PrivateKey) -> None:
    """Checks that `key` is the key of `certificate`.

    Raises:
        AuthorityUnusable: not.
    """
    with readable(NO_PAIR.rstrip(": ")):
        if certificate.public_key() != key.public_key():
            raise AuthorityUnusable(f"{NO_PAIR}tls: private key does not match public key")


def check_chain(chain: Sequence[x509.Certificate], key: PrivateKey) -> None:
    """Checks that `key` is the key of the first certificate.

    Raises:
        AuthorityUnusable: not; says which one it is the key of, if it is of any.
    """
    try:
        check_pair(chain[0], key)
    except AuthorityUnusable as error:
        places = [i for i, certificate in enumerate(chain) if certificate.public_key() == key.public_key()]
        if not places:
            raise
        raise AuthorityUnusable(
            f"{error}: it belongs to cert[{places[0]}]; place the closest CA first, then the others in order up the "
            "chain"
        ) from None


@contextmanager
def _in_own_words(pem: bytes) -> Iterator[None]:
    """Says what was done to a PEM on its way, rather than that the library cannot read it."""
    try:
        yield
    except ValueError as error:
        reason = _mangled(pem) or ("the PEM is damaged" if _NO_PEM in str(error) else "")
        if not reason:
            raise
        raise AuthorityUnusable(f"{_NO_CERTIFICATE}: {reason}") from None


_NO_CERTIFICATE = "not a valid x509 certificate"
_NO_PEM = "Unable to load PEM"
"""How the library begins, whose text goes on with an address of its own."""
_ESCAPED = re.compile(rb"(\\r)?\\n")
_QUOTED_LINE = re.compile(rb"^> ?", re.MULTILINE)


def _mangled(pem: bytes) -> str:
    """Says what other hands have made of a PEM; empty if that is not known."""
    if found := _ESCAPED.search(pem):
        return f"has the characters {found[0].decode()} in place of line ends; write it with line ends"
    if _QUOTED_LINE.search(pem):
        return 'has "> " before its lines; write it without'
    return ""


def _blocks(pem: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Returns every block with its label, from where it begins to where the next one does: half a block is one, too."""
    begins = list(_BEGIN.finditer(pem))
    ends = (*(match.start() for match in begins[1:]), len(pem))
    for match, end in zip(begins, ends, strict=False):
        yield match[1], pem[match.start() : end]


def _nothing(what: str, labels: list[bytes]) -> str:
    if not labels:
        return f"tls: failed to find any PEM data in {what} input"
    if what == "certificate" and len(labels) == 1 and labels[0].endswith(_KEY):
        return (
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched"
        )
    if what == "key" and set(labels) <= set(_CERTIFICATES):
        return "tls: found a certificate rather than a key in the PEM for the private key"
    wanted = '"CERTIFICATE" PEM block in certificate' if what == "certificate" else (
        'PEM block with type ending in "PRIVATE KEY" in key'
    )  # fmt: skip
    return f"tls: failed to find {wanted} input after skipping PEM blocks of other types"
