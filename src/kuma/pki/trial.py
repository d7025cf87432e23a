"""Tries an authority out: two ends with certificates of it shake hands, as Envoys would, and verify each other.

What forbids an authority from being used may stand in any extension of any of its certificates: name constraints,
extended key usage, something critical that nobody knows. Rather than to know them all, a verifier is asked.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from kuma.pki import spiffe, standin
from kuma.pki.authority import Authority, AuthorityUnusable, SignRequest
from kuma.pki.pem import read_chain, readable
from kuma.pki.ssl_context import show
from kuma.pki.x509 import certificate_pem, key_pem

_ROUNDS = 10
"""More than any handshake has."""
_LIFETIME = timedelta(seconds=1)
_AT_ANY_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME: times are judged by the rules, against the clock that everything goes by."""


async def check(mesh: str, authority: Authority, now: datetime) -> None:
    """Checks that certificates of an authority verify.

    Raises:
        AuthorityUnusable: not; says why.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    # It ends before it is made: nobody can use it for anything else.
    end = now.replace(microsecond=0) - timedelta(days=1)
    request = SignRequest(key.public_key(), (spiffe.service_id(mesh, "x"),), end - _LIFETIME, end)
    with readable("cannot sign certificates"):
        signed = await authority.sign(request)
        chain = b"".join(certificate_pem(certificate) for certificate in (signed.leaf, *signed.intermediates))
    try:
        _shake_hands(chain + key_pem(key), _anchors(authority).decode())
    except ssl.SSLCertVerificationError as error:
        raise AuthorityUnusable(
            f"the certificates that it issues, such as for {request.uris[0]}, do not verify: {error.verify_message}. "
            "Envoy would refuse every connection; look at the CA's name constraints and extended key usage"
        ) from None
    except ssl.SSLError as error:
        raise AuthorityUnusable(f"TLS cannot be spoken with its certificates: {error.reason}") from None


async def check_without_key(mesh: str, chain: Sequence[x509.Certificate], now: datetime) -> None:
    """Checks that certificates of an authority with `chain` would verify, as far as that is known without its key.

    Raises:
        AuthorityUnusable: not, whatever the key is; says why.
    """
    try:
        like_it = standin.authority(chain)
    except AuthorityUnusable:
        return  # nothing to try it out with: it is told once the key is there
    await check(mesh, like_it, now)


def _anchors(authority: Authority) -> bytes:
    """Returns the roots as Envoy looks at them."""
    return b"".join(certificate_pem(standin.anchor(root)) for root in read_chain(authority.roots_pem))


def _shake_hands(chain_and_key: bytes, roots: str) -> None:
    """Shakes hands in memory, with the chain at both ends.

    Raises:
        ssl.SSLError: it fails.
    """
    contexts = [ssl.SSLContext(protocol) for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)]
    for context in contexts:
        show(context, chain_and_key)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _AT_ANY_TIME  # as Envoy: what is trusted may be no root
        context.load_verify_locations(cadata=roots)
    client_in, server_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [contexts[0].wrap_bio(client_in, server_in), contexts[1].wrap_bio(server_in, client_in, server_side=True)]
    for _ in range(_ROUNDS):
        ends = [end for end in ends if not _is_done(end)]
        if not ends:
            return
    raise ssl.SSLError(1, "the handshake does not end")


def _is_done(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
