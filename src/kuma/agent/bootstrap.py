"""Asks the control plane for the bootstrap of an Envoy."""

from __future__ import annotations

import base64
import json
import platform
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog

import kuma
from kuma.agent.workload import Workload
from kuma.base.aio import Backoff
from kuma.base.clock import Clock
from kuma.base.errors import KumaError, Misconfigured
from kuma.resources import codec

log = structlog.get_logger(__name__)

_RETRY = Backoff(first=1.0, last=10.0)
_TIMEOUT = 10.0


_NO_SUCH_PAGE = "404: Page Not Found"
"""What the API of a control plane, the original's too, says to a path that it does not have."""


class BootstrapRefused(KumaError):
    """The control plane does not hand out a bootstrap; asking again would not help."""


class Unreachable(KumaError):
    """No answer that could be used; asking again may help."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where the control plane is, and the CA by which it is recognised."""

    address: str
    ca_file: Path | None = None

    def verification(self) -> ssl.SSLContext | bool:
        """How the control plane's certificate is verified: always.

        Raises:
            Misconfigured: the CA file cannot be used, or the address is no https URL.
        """
        url = urlsplit(self.address)
        if url.scheme != "https" or not url.hostname:
            raise Misconfigured(
                f"--cp-address {self.address}: has to be an https URL such as https://localhost:5678, "
                "because a token is sent there"
            )
        if self.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cadata=self.ca_file.read_text())
        except (ssl.SSLError, UnicodeDecodeError):
            raise Misconfigured(f"--ca-cert-file {self.ca_file} does not hold a certificate in PEM") from None
        except OSError as error:
            raise Misconfigured(
                f"--ca-cert-file {self.ca_file}: {error.strerror}. "
                "It is the file ca.crt in the control plane's work directory"
            ) from None


def request_body(workload: Workload, ca_pem: str, envoy_version: str) -> Mapping[str, Any]:
    """The body of `POST /bootstrap`."""
    brought = workload.dataplane
    return {
        "mesh": workload.mesh,
        "name": workload.name,
        "proxyType": "dataplane",
        "dataplaneToken": workload.token,
        "dataplaneResource": json.dumps(codec.to_universal(brought)) if brought else "",
        "version": {
            "kumaDp": {"version": kuma.__version__, "gitTag": "", "gitCommit": "", "buildDate": ""},
            "envoy": {"version": envoy_version, "build": "", "kumaDpCompatible": True},
        },
        "caCert": ca_pem,
        "operatingSystem": platform.system().lower(),
    }


async def fetch(control_plane: ControlPlane, workload: Workload, envoy_version: str, clock: Clock) -> bytes:
    """The bootstrap; asks until it is answered, and says what is wrong each time it is not.

    Raises:
        Misconfigured: the control plane cannot even be asked with these settings.
        BootstrapRefused: the answer is no.
    """
    verification = control_plane.verification()
    ca_pem = control_plane.ca_file.read_text() if control_plane.ca_file else ""
    body = request_body(workload, ca_pem, envoy_version)
    failures = 0
    async with httpx.AsyncClient(verify=verification, timeout=_TIMEOUT, trust_env=False) as client:
        while True:
            try:
                return await _ask(client, control_plane.address, body)
            except Unreachable as error:
                failures += 1
                pause = _RETRY.delay(failures)
                log.warning("no bootstrap yet", reason=str(error), retry_in_seconds=pause)
                await clock.sleep(pause)


async def _ask(client: httpx.AsyncClient, address: str, body: Mapping[str, Any]) -> bytes:
    try:
        answer = await client.post(
            f"{address.rstrip('/')}/bootstrap", json=body, headers={"accept": "application/json"}
        )
    except httpx.HTTPError as error:
        if _is_untrusted(error):
            raise BootstrapRefused(
                f"the control plane at {address} is not the one that --ca-cert-file stands for, "
                f"or has another name than it is called by: {error}"
            ) from None
        raise Unreachable(
            f"the control plane at {address} cannot be reached: {error or type(error).__name__}. Is kuma-cp running?"
        ) from None
    if answer.status_code == httpx.codes.OK:
        return _bootstrap(answer)
    if answer.text.strip() == _NO_SUCH_PAGE:
        raise BootstrapRefused(
            f"what answers at {address} hands out no bootstraps; is that the port of the API? "
            "--cp-address has to name the data plane server, by default port 5678"
        )
    text = answer.text.strip()[:1000] or f"HTTP status {answer.status_code}"
    if answer.status_code == httpx.codes.NOT_FOUND or answer.is_server_error:
        raise Unreachable(f"the control plane at {address} has no bootstrap for this proxy: {text}")
    raise BootstrapRefused(f"the control plane at {address} refuses this proxy: {text}")


def _bootstrap(answer: httpx.Response) -> bytes:
    try:
        return base64.b64decode(answer.json()["bootstrap"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise Unreachable("the control plane's answer is no bootstrap") from None


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
