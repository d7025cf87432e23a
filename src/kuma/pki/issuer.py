"""Issues identities: a new key, a template, the authority's signature, a check of what came back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from kuma.base.errors import KumaError
from kuma.pki.authority import Authority, SignedLeaf, SignRequest
from kuma.pki.x509 import BACKDATED, certificate_pem, key_pem


class IssueFailed(KumaError):
    """Raised when no certificate could be issued; the text says why. Nothing was issued instead."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An X.509-SVID with its key. Lives in memory only; the key is kept out of `repr`."""

    backend: str
    uris: tuple[str, ...]
    serial: int
    issued: datetime
    not_before: datetime
    not_after: datetime
    chain_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)


async def issue(
    authority: Authority, uris: Sequence[str], lifetime: timedelta, now: datetime, since: datetime | None = None
) -> Identity:
    """Issue a new identity that says `uris` and lives for `lifetime`, or as long as its authority if that ends before.

    The key is a new ECDSA P-256 key, whatever the authority's own key is. It begins well before `now`, or before
    `since` if that is earlier: when the identity was issued that it replaces. So it holds on machines whose clocks are
    behind, and if it is ours that has just jumped ahead. It never begins before its authority.

    Raises:
        IssueFailed: the authority has expired or has not begun, does not sign, or signed something else.
    """
    now = now.replace(microsecond=0)  # as coarse as X.509 time, RFC 5280 §4.1.2.5
    not_after = min(now + lifetime, authority.not_after)
    if not_after <= now:
        raise IssueFailed(
            f'the certificate of backend "{authority.name}" ended at {authority.not_after:%Y-%m-%dT%H:%M:%SZ}: '
            "enable another backend"
        )
    if authority.not_before > now:
        raise IssueFailed(
            f'the certificate of backend "{authority.name}" begins at {authority.not_before:%Y-%m-%dT%H:%M:%SZ}, and '
            f"it is {now:%Y-%m-%dT%H:%M:%SZ}: wait for that, or set the clock right"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    begin = max(min(now, since or now).replace(microsecond=0) - BACKDATED, authority.not_before)
    request = SignRequest(key.public_key(), tuple(uris), begin, not_after)
    try:
        signed = await authority.sign(request)
        _check(authority, request, signed)
    except IssueFailed:
        raise
    except Exception as error:  # an authority may be anything, and fail in any way: it holds up its mesh only
        raise IssueFailed(f'backend "{authority.name}" did not sign: {error}') from error
    chain = b"".join(certificate_pem(certificate) for certificate in (signed.leaf, *signed.intermediates))
    return Identity(
        backend=authority.name,
        uris=request.uris,
        serial=signed.leaf.serial_number,
        issued=now,
        not_before=signed.leaf.not_valid_before_utc,
        not_after=not_after,
        chain_pem=chain,
        key_pem=key_pem(key),
    )


def _check(authority: Authority, request: SignRequest, signed: SignedLeaf) -> None:
    """Hold an authority to what it was asked for: a remote one may have its own ideas."""
    leaf = signed.leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    wrong = [
        what
        for what, fine in (
            ("names", tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) == request.uris),
            ("key", leaf.public_key() == request.public_key),
            ("lifetime", leaf.not_valid_after_utc == request.not_after),
            ("signature", _signed_by_chain(signed)),
        )
        if not fine
    ]
    if wrong:
        raise IssueFailed(f'backend "{authority.name}" signed another {", ".join(wrong)} than asked for')


def _signed_by_chain(signed: SignedLeaf) -> bool:
    try:
        for certificate, issuer in zip((signed.leaf, *signed.intermediates), signed.intermediates, strict=False):
            certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
