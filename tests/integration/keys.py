"""Looks for a private key in whatever form somebody may have written it down."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

_LINE_ENDS = re.compile(rb"(\\+[rn]|\s)+")
_ESCAPED = re.compile(rb"\\+(x[0-9a-f]{2}|[nrt'\"])")
_NAMED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class Needle:
    """The traces of one EC private key: its number, in binary or text, and the lines of its PEM."""

    def __init__(self, pem: bytes) -> None:
        key = serialization.load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value
        raw = number.to_bytes(32, "big")
        self._binary = raw
        self._text = {
            raw.hex().encode(),
            str(number).encode(),
            *_in_base64(raw),  # DER in base64, and so PEM, in whichever of its two structures
            *(part for line in _lines(key) for part in _in_base64(line)),  # PEM that was encoded once more
        }

    def is_in(self, content: bytes) -> bool:
        """Whether the key shows."""
        if self._binary in content or self._binary in _ESCAPED.sub(_unescaped, content):
            return True
        joined = _LINE_ENDS.sub(b"", content)
        views = (joined, joined.lower(), joined.replace(b"-", b"+").replace(b"_", b"/"))
        return any(trace in view for trace in self._text for view in views)


def _lines(key: ec.EllipticCurvePrivateKey) -> Iterator[bytes]:
    """The lines of its PEM."""
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        yield from (line for line in pem.splitlines()[1:-1] if len(line) == 64)


def _unescaped(found: re.Match[bytes]) -> bytes:
    """What stands for a byte in the `repr` of bytes, in JSON or not."""
    meant = found[1]
    return bytes.fromhex(meant[1:].decode()) if meant[:1] == b"x" else _NAMED.get(meant, meant)


def _in_base64(content: bytes) -> Iterator[bytes]:
    """What `content` looks like somewhere inside of something that is encoded as a whole."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + content)
        yield encoded[4:-4]
