"""Asks the control plane for the bootstrap of an Envoy."""

from __future__ import annotations

import base64
import json
import platform
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog

import kuma
from kuma.agent.workload import Workload
from kuma.base.aio import Backoff
from kuma.base.clock import Clock
from kuma.base.errors import KumaError, Misconfigured
from kuma.base.tls import handshakes
from kuma.base.values import contact_limit, farewell, urls
from kuma.resources import codec

log = structlog.get_logger(__name__)

_RETRY = Backoff(first=1.0, last=10.0)
_TIMEOUT = 10.0
TOKEN_SECRET = "dataplane_token"  # noqa: S105 - the name of a secret
_FAREWELL = httpx.Timeout(10.0, connect=2.0)
"""Seconds that the end of a proxy waits for the control plane: which itself waits until callers have answered."""


class BootstrapRefused(KumaError):
    """Raised when the control plane refuses a bootstrap; asking again would not help."""


class Unreachable(KumaError):
    """Raised when there is no usable answer; asking again may help."""


@dataclass(frozen=True, slots=True)
class ControlPlaneAddress:
    """Address of the control plane, and the CA that verifies it."""

    address: str
    ca_file: Path | None = None

    def verification(self) -> ssl.SSLContext | bool:
        """Returns the TLS settings that verify the control plane's certificate; verification cannot be turned off.

        Raises:
            Misconfigured: the CA file cannot be used, or the address is no https URL.
        """
        try:
            urls.split(self.address, "https")
        except ValueError as error:
            raise Misconfigured(
                f"--cp-address {self.address}: {error}; such as https://localhost:5678. A token is sent there"
            ) from None
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
    """Returns the body of `POST /bootstrap`."""
    brought = workload.dataplane
    return {
        "mesh": workload.mesh,
        "name": workload.name,
        "proxyType": "dataplane",
        "dataplaneToken": workload.token.token,
        "dataplaneResource": json.dumps(codec.to_universal(brought)) if brought else "",
        "version": {
            "kumaDp": {"version": kuma.__version__, "gitTag": "", "gitCommit": "", "buildDate": ""},
            "envoy": {"version": envoy_version, "build": "", "kumaDpCompatible": True},
        },
        "caCert": ca_pem,
        "readinessPort": workload.readiness_port,
        # Envoy gets the bootstrap as it is, whatever is in it; but for the token, which is put in here.
        "features": ["feature-resource-monitors", "feature-own-token"],
        "operatingSystem": platform.system().lower(),
    }


async def fetch(control_plane: ControlPlaneAddress, workload: Workload, envoy_version: str, clock: Clock) -> bytes:
    """Fetches the bootstrap: asks until it is answered, and says what is wrong each time it is not.

    Raises:
        Misconfigured: the control plane cannot even be asked with these settings.
        BootstrapRefused: the answer is no.
    """
    verification = control_plane.verification()
    ca_pem = control_plane.ca_file.read_text() if control_plane.ca_file else ""
    failures = 0
    async with httpx.AsyncClient(verify=verification, timeout=_TIMEOUT, trust_env=False) as client:
        while True:
            try:
                return await _ask(client, control_plane, request_body(workload, ca_pem, envoy_version))
            except Unreachable as error:
                failures += 1
                pause = _RETRY.delay(failures)
                log.warning("no bootstrap yet", reason=str(error), retry_in_seconds=pause)
                await clock.sleep(pause)
                workload.token.renew()


def with_token(bootstrap: bytes, token: str) -> bytes:
    """Puts the token into the secret that a bootstrap has for it; an older control plane has put it in elsewhere.

    Envoy redacts secrets in its dumps.
    """
    found = json.loads(bootstrap)
    for secret in found.get("staticResources", {}).get("secrets", ()):
        if secret.get("name") == TOKEN_SECRET:
            secret["genericSecret"] = {"secret": {"inlineString": token}}
    return json.dumps(found).encode()


def with_token_from(bootstrap: bytes, file: Path) -> bytes:
    """Has Envoy take the token from a secret in a file, and again from there whenever that is replaced."""
    found = json.loads(bootstrap)
    static = found.get("staticResources", {})
    others = [secret for secret in static.get("secrets", ()) if secret.get("name") != TOKEN_SECRET]
    if len(others) == len(static.get("secrets", ())):
        log.warning("this control plane is older: a new token takes effect when kuma-dp is restarted")
        return bootstrap
    static["secrets"] = others
    source = {"path": str(file), "watchedDirectory": {"path": str(file.parent)}}
    for reference in _references(static, TOKEN_SECRET):
        reference["sdsConfig"] = {"pathConfigSource": source, "resourceApiVersion": "V3"}
    return json.dumps(found).encode()


def with_farewell(bootstrap: bytes, secret: str) -> bytes:
    """Has Envoy show the control plane by what its end can be told; see `kuma.base.values.farewell`."""
    found = json.loads(bootstrap)
    found.setdefault("node", {}).setdefault("metadata", {})[farewell.DIGEST] = farewell.digest(secret)
    return json.dumps(found).encode()


def with_contact_limit(bootstrap: bytes, seconds: float) -> bytes:
    """Has Envoy say for how long it may serve without the control plane; see `kuma.base.values.contact_limit`."""
    found = json.loads(bootstrap)
    found.setdefault("node", {}).setdefault("metadata", {})[contact_limit.LIMIT] = seconds
    return json.dumps(found).encode()


def _references(part: Any, secret: str) -> Iterator[dict[str, Any]]:
    """Returns where a part of a bootstrap refers to a secret by its name, and says nothing else of it."""
    if part == {"name": secret}:
        yield part
    elif isinstance(part, dict | list):
        for below in part.values() if isinstance(part, dict) else part:
            yield from _references(below, secret)


async def withdraw(control_plane: ControlPlaneAddress, workload: Workload, proof: str) -> bool:
    """Say that the proxy is about to end; returns when its callers have been told. False if nobody answers."""
    token = workload.token.token
    body = {"mesh": workload.mesh, "name": workload.name, "dataplaneToken": token, "farewell": proof}
    try:
        async with httpx.AsyncClient(verify=control_plane.verification(), timeout=_FAREWELL, trust_env=False) as client:
            answer = await client.post(f"{control_plane.address.rstrip('/')}/withdraw", json=body)
    except httpx.HTTPError as error:
        log.warning("callers not told that the proxy ends", reason=str(error) or type(error).__name__)
        return False
    if not answer.is_success:  # an older control plane, or a Dataplane that is gone already
        log.warning("callers not told that the proxy ends", reason=answer.text.strip()[:300])
    return True


async def _ask(client: httpx.AsyncClient, control_plane: ControlPlaneAddress, body: Mapping[str, Any]) -> bytes:
    address = control_plane.address
    try:
        answer = await client.post(
            f"{address.rstrip('/')}/bootstrap", json=body, headers={"accept": "application/json"}
        )
    except httpx.TimeoutException:
        raise Unreachable(f"the control plane at {address} does not answer within {_TIMEOUT:.0f} seconds") from None
    except httpx.HTTPError as error:
        if handshakes.of_another_time(error):  # clocks are set, soon after a machine has started
            fault = handshakes.untrusted(error)
            raise Unreachable(
                f"by the clock of this machine the control plane at {address} cannot be trusted: {fault}. Set the "
                "clocks of both right (NTP)"
            ) from None
        refusal = _refusal(control_plane, error)
        if refusal:
            raise BootstrapRefused(refusal) from None
        reason = handshakes.words(error)
        raise Unreachable(f"the control plane at {address} cannot be reached: {reason}. Is kuma-cp running?") from None
    if answer.status_code == httpx.codes.OK:
        return _bootstrap(answer)
    text = answer.text.strip()[:1000] or f"HTTP status {answer.status_code}"
    if answer.status_code == httpx.codes.NOT_FOUND and _is_of_another_server(answer):
        raise BootstrapRefused(f"there is no /bootstrap at {address}: {_ANOTHER_SERVER}")
    if answer.status_code == httpx.codes.NOT_FOUND or answer.is_server_error:
        raise Unreachable(f"the control plane at {address} has no bootstrap for this proxy: {text}")
    raise BootstrapRefused(f"the control plane at {address} refuses this proxy: {text}")


_ANOTHER_SERVER = "this is no data plane server; its port is 5678"


def _is_of_another_server(answer: httpx.Response) -> bool:
    """Tells whether a 404 is about the path; one about a Dataplane has a plain-text body, or none."""
    is_page = answer.headers.get("content-type", "").startswith(("application/", "text/html"))
    return is_page or answer.text.startswith(("404 page not found", "404: Page Not Found"))


def _refusal(control_plane: ControlPlaneAddress, error: httpx.HTTPError) -> str:
    """Returns why asking again would not help; empty if it might."""
    address, untrusted = control_plane.address, handshakes.untrusted(error)
    if untrusted and control_plane.ca_file is None:
        return (
            f"the certificate of the control plane at {address} is not trusted: {untrusted}. "
            "Give its CA with --ca-cert-file: the file ca.crt in the control plane's work directory"
        )
    if untrusted:
        return (
            f"the control plane at {address} is not the one that --ca-cert-file stands for, "
            f"or has another name than it is called by: {untrusted}"
        )
    return f"what answers at {address} does not speak TLS: {_ANOTHER_SERVER}" if handshakes.no_tls(error) else ""


def _bootstrap(answer: httpx.Response) -> bytes:
    try:
        return base64.b64decode(answer.json()["bootstrap"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise Unreachable("the control plane's answer is no bootstrap") from None
