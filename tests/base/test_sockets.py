"""Addresses of this machine."""

import pytest

from kuma.base.system import sockets


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_an_address_of_this_machine(address: str) -> None:
    assert sockets.is_own(address)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "", "no address"])
def test_an_address_of_another_machine(address: str) -> None:
    assert not sockets.is_own(address)
