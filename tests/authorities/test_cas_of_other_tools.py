"""CAs as step, cfssl and Vault make them: their extensions and forms of keys, made with openssl.

The recipes for step (0.21) and cfssl (1.6.5) in docs/concepts/authorities.md were followed by hand; these are the
extensions that they set, and those of Vault's documentation.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kuma.store.manager import ResourceManager
from tests.authorities.test_provided import manager, provide
from tests.fakes import cas
from tests.fakes.cas import Ca, on_curve, with_extensions

__all__ = ["manager"]

SIGN, SKI = "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash"
AKI = "authorityKeyIdentifier=keyid"
STEP_ROOT = with_extensions(SIGN, "basicConstraints=critical,CA:TRUE,pathlen:1", SKI)
STEP_INTERMEDIATE = with_extensions(SIGN, "basicConstraints=critical,CA:TRUE,pathlen:0", SKI, AKI)
CFSSL = with_extensions(SIGN, "basicConstraints=critical,CA:TRUE", SKI)
VAULT = with_extensions(SIGN, "basicConstraints=critical,CA:TRUE", SKI, AKI)
ROOTS = {"step": STEP_ROOT, "cfssl": CFSSL, "vault": VAULT}


def sec1(directory: Path, name: str, ca: Ca) -> Ca:
    """The key in the form that these tools write: `EC PRIVATE KEY`."""
    cas.openssl(directory, "ec", "-in", f"{name}.key", "-out", f"{name}.sec1")
    key = (directory / f"{name}.sec1").read_text()
    assert "BEGIN EC PRIVATE KEY" in key
    return Ca(ca.cert, key)


@pytest.mark.parametrize("tool", ROOTS)
async def test_roots_of_other_tools(manager: ResourceManager, tmp_path: Path, tool: str) -> None:
    made = cas.root(tmp_path, tool, ROOTS[tool], on_curve("P-256"), days="3650")
    assert await provide(manager, sec1(tmp_path, tool, made)) == ()


@pytest.mark.parametrize(("tool", "extensions"), [("step", STEP_INTERMEDIATE), ("vault", VAULT)])
async def test_an_intermediate_with_its_chain_behind_it(
    manager: ResourceManager, tmp_path: Path, tool: str, extensions: str
) -> None:
    """`vault -field` prints no line end after a certificate, so that the next one begins on the same line."""
    root = cas.root(tmp_path, "root", ROOTS[tool], on_curve("P-256"))
    made = cas.intermediate(tmp_path, "intermediate", "root", extensions)
    assert await provide(manager, Ca(made.cert.rstrip("\n") + root.cert, made.key)) == ()
