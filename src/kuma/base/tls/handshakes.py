"""Finds the reason why a TLS handshake failed among the causes of a client's exception."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator


def untrusted(error: BaseException) -> str:
    """Returns the fault of the other side's certificate in the words of OpenSSL; empty if that is not the cause."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message.rstrip(".") or "it cannot be verified"
    return ""


def of_another_time(error: BaseException) -> bool:
    """Tells whether the other side's certificate has not begun, or has ended, by this machine's clock."""
    return any(isinstance(e, ssl.SSLCertVerificationError) and e.verify_code in _TIMES for e in _causes(error))


def no_tls(error: BaseException) -> bool:
    """Tells whether the other side has answered with something that is not TLS."""
    return any(isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS for cause in _causes(error))


def refused(error: BaseException) -> bool:
    """Tells whether the other side has refused the certificate that we have shown, or its absence."""
    return any(isinstance(cause, ssl.SSLError) and cause.reason in _REFUSALS for cause in _causes(error))


def cut_off(error: BaseException) -> bool:
    """Tells whether the other side has ended a connection without an answer."""
    return any(isinstance(cause, _ENDS) or _SILENCE in str(cause) for cause in _causes(error))


_TIMES = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""
_ENDS = (ssl.SSLEOFError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_SILENCE = "without sending a response"
_REFUSALS = (
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_UNKNOWN_CA",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
)
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
)


def words(error: BaseException) -> str:
    """Returns the text of an error for the middle of a sentence, without its number; its name if it has none."""
    return _NUMBER.sub("", str(error)).rstrip(". ") or type(error).__name__


_NUMBER = re.compile(r"^\[Errno -?\d+\] ")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
