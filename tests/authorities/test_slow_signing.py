"""A large RSA key takes long to sign with: whoever waits for something else does not wait for that."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kuma.authorities.local import local_authority
from kuma.pki.authority import SignRequest
from kuma.pki.x509 import CaPair, PrivateKey, build_root

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
EC = ec.generate_private_key(ec.SECP256R1())


class Names(tuple[str, ...]):
    """Names that know in which thread they were written into a leaf."""

    written_by = 0

    def __iter__(self) -> Iterator[str]:
        self.written_by = threading.get_ident()
        return super().__iter__()


@pytest.mark.parametrize(("bits", "beside"), [(0, False), (3072, True)], ids=["ec", "rsa"])
async def test_a_large_rsa_key_signs_beside_the_loop_and_others_on_it(bits: int, beside: bool) -> None:
    key: PrivateKey = rsa.generate_private_key(65537, bits) if bits else EC
    authority = local_authority("ca-1", CaPair(build_root("default", key, NOW, 30 * DAY), key))
    names = Names(["spiffe://default/web"])
    signed = await authority.sign(SignRequest(EC.public_key(), names, NOW, NOW + DAY))
    assert signed.leaf.public_key() == EC.public_key()
    assert (names.written_by != threading.get_ident()) is beside
