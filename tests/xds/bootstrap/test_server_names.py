"""The CA that a proxy would verify the control plane by: anybody may send anything."""

from pathlib import Path

import pytest

from kuma.xds.bootstrap.server_names import ServerNames, Unverifiable
from tests.fakes import cas
from tests.fakes.cas import on_curve, with_extensions

CA, SIGN = "basicConstraints=CA:TRUE", "keyUsage=keyCertSign"
ODD = {
    "x400Address": "2.5.29.17=DER:30:04:A3:02:30:00",
    "ediPartyName": "2.5.29.17=DER:30:06:A5:04:A1:02:0C:00",
}


@pytest.mark.parametrize("extension", ODD.values(), ids=list(ODD))
def test_a_ca_that_cannot_be_read_is_none(tmp_path: Path, extension: str) -> None:
    odd = cas.root(tmp_path, "odd", with_extensions(CA, SIGN, extension), on_curve("P-256")).cert
    good = cas.root(tmp_path, "good", with_extensions(CA, SIGN), on_curve("P-256")).cert
    found = ServerNames(("localhost",), good.encode())
    with pytest.raises(Unverifiable, match="holds no certificate of a CA"):
        found.ca_for("localhost", odd.encode())
    both = (odd + good).encode()
    assert found.ca_for("localhost", both) == both
