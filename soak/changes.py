"""Changes of a mesh's mutual TLS, each in one of the ways that the product promises to survive."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass
from typing import Any

from soak.authorities import Provided, Root

LONGEST_OUTAGE = 20.0
"""Seconds for which a killed control plane may be away, at worst; leaves have a fifth of their life to bridge them."""


@dataclass(frozen=True)
class Change:
    """A change: documents to apply in order. `lifetime` is the leaves', in seconds; `dwell` is how long to stay."""

    what: str
    documents: tuple[dict[str, Any], ...]
    strict: bool = False
    enabled: str = ""
    lifetime: float = 3600
    dwell: float = 0

    @property
    def survives_outages(self) -> bool:
        return self.lifetime / 5 > LONGEST_OUTAGE

    def text(self) -> str:
        return "\n---\n".join(json.dumps(document) for document in self.documents)


class Changes:
    """Draws changes that follow on each other."""

    def __init__(self) -> None:
        self._number = 0
        self._roots = [Root("one"), Root("two")]
        self.provided: Provided | None = None
        self._listed: list[dict[str, Any]] = []

    def draw(self) -> Change:
        """The next change."""
        self._number += 1
        kinds = [self._off, self._builtin, self._builtin, self._rsa, self._short_leaves, self._provide, self._provide]
        if self.provided is not None and self._is_enabled_provided:
            kinds += [self._other_content] * 4
        return random.choice(kinds)()

    def renewal(self) -> Change:
        """A root that has to be renewed while we stay."""
        self._number += 1
        conf = {"caCert": {"expiration": "1m"}}
        return self._mesh("a root that is renewed", {"name": f"short-{self._number}", "conf": conf}, dwell=55)

    @property
    def _is_enabled_provided(self) -> bool:
        return bool(self._listed) and self._listed[0]["type"] == "provided"

    def _off(self) -> Change:
        self._listed = []
        return Change("off", ({"type": "Mesh", "name": "default"},))

    def _builtin(self) -> Change:
        return self._mesh("builtin", {"name": f"ca-{self._number}"})

    def _rsa(self) -> Change:
        return self._mesh("builtin RSA", {"name": f"rsa-{self._number}", "conf": {"caCert": {"RSAbits": 2048}}})

    def _short_leaves(self) -> Change:
        certificate = {"rotation": {"expiration": "3s"}}
        enabled = {"name": f"ca-{self._number}", "dpCert": certificate}
        return self._mesh("leaves of three seconds", enabled, lifetime=3, dwell=random.choice((8, 40)))

    def _provide(self) -> Change:
        self.provided = self._some_authority()
        conf = {part: {"secret": f"own-{part}"} for part in ("cert", "key")}
        backend = {"name": "own", "type": "provided", "conf": conf}
        secrets = () if self._is_enabled_provided else self._secrets(self.provided)
        if not secrets:
            return self._other_content()
        change = self._mesh("provided", backend)
        return Change("provided", (*secrets, *change.documents), change.strict, "own")

    def _other_content(self) -> Change:
        """Other Secrets under the same names: another root, or another intermediate under the same."""
        self.provided = self._some_authority()
        strict = self._listed[0].get("mode") == "STRICT"
        return Change("other content of the Secrets", self._secrets(self.provided), strict, "own")

    def _some_authority(self) -> Provided:
        root = random.choice(self._roots)
        return root.itself() if random.random() < 0.3 else root.intermediate(f"intermediate {self._number}")

    def _secrets(self, authority: Provided) -> tuple[dict[str, Any], ...]:
        parts = {"own-cert": authority.chain, "own-key": authority.key}
        return tuple(
            {"type": "Secret", "mesh": "default", "name": name, "data": base64.b64encode(data).decode()}
            for name, data in parts.items()
        )

    def _mesh(self, what: str, enabled: dict[str, Any], *, lifetime: float = 3600, dwell: float = 0) -> Change:
        mode = random.choice(("STRICT", "STRICT", "PERMISSIVE"))
        backend = {"type": "builtin", "mode": mode, **enabled}
        kept = self._listed[:1] if random.random() < 0.5 else []
        backends = [backend, *(old for old in kept if old["name"] != backend["name"])]
        self._listed = backends
        mesh = {"type": "Mesh", "name": "default", "mtls": {"enabledBackend": backend["name"], "backends": backends}}
        return Change(f"{what}, {mode}", (mesh,), mode == "STRICT", str(backend["name"]), lifetime, dwell)
