"""Where the API server is and who we are to it: a kubeconfig file, or what every Pod is given."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kuma.base.errors import Misconfigured

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Address of the API server, and how the two know each other.

    `token` is asked before each request: the token of a Pod is replaced while the Pod runs.
    """

    url: str
    tls: ssl.SSLContext
    token: Callable[[], str]


def find(kubeconfig: Path | None, account: Path = _ACCOUNT) -> Credentials:
    """Returns the credentials in a kubeconfig file, or, without one, those of the Pod that we are in.

    Raises:
        Misconfigured: there are none, or they are of a sort that is not understood.
    """
    return _of_file(kubeconfig) if kubeconfig is not None else _of_pod(account)


def _of_pod(account: Path) -> Credentials:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise Misconfigured(
            "this is no Pod of a Kubernetes cluster (KUBERNETES_SERVICE_HOST is not set); "
            "elsewhere KUMA_STORE_KUBERNETES_KUBECONFIG says where the cluster is"
        )
    try:
        tls = ssl.create_default_context(cafile=account / "ca.crt")
        (account / "token").read_text()
    except OSError as error:
        raise Misconfigured(f"the ServiceAccount of this Pod cannot be read in {account}: {error.strerror}") from None
    named = f"[{host}]" if ":" in host else host
    return Credentials(f"https://{named}:{port}", tls, lambda: (account / "token").read_text().strip())


def _of_file(path: Path) -> Credentials:
    try:
        content = yaml.safe_load(path.expanduser().read_text())
    except OSError as error:
        raise Misconfigured(f"cannot read the kubeconfig {path}: {error.strerror}") from None
    except yaml.YAMLError:
        raise Misconfigured(f"the kubeconfig {path} is no YAML") from None
    try:
        context = _named(content["contexts"], content["current-context"])["context"]
        cluster = _named(content["clusters"], context["cluster"])["cluster"]
        user = _named(content["users"], context["user"])["user"] or {}
        url = str(cluster["server"]).rstrip("/")
    except (KeyError, TypeError, StopIteration):
        raise Misconfigured(f"the kubeconfig {path} has no current context with a cluster and a user") from None
    unknown = {"exec", "auth-provider", "username"} & set(user)
    if unknown or cluster.get("insecure-skip-tls-verify"):
        what = ", ".join(sorted(unknown)) or "insecure-skip-tls-verify"
        raise Misconfigured(
            f"the kubeconfig {path} uses {what}, which is not supported: "
            "a client certificate or a token, and the cluster's CA are needed"
        )
    return Credentials(url, _tls(path, cluster, user), _token(path, user))


def _named(entries: Any, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(entry for entry in entries if entry["name"] == name)
    return found


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    ca = _data(path, cluster, "certificate-authority")
    certificate, key = _data(path, user, "client-certificate"), _data(path, user, "client-key")
    try:
        context = ssl.create_default_context(cadata=ca.decode() if ca else None)
        if certificate and key:
            with tempfile.NamedTemporaryFile(suffix=".pem") as pair:  # mode 0600; ssl reads files only
                pair.write(certificate + b"\n" + key)
                pair.flush()
                context.load_cert_chain(pair.name)
    except (ssl.SSLError, ValueError):
        raise Misconfigured(f"the certificates of the kubeconfig {path} are not usable") from None
    return context


def _token(path: Path, user: Mapping[str, Any]) -> Callable[[], str]:
    file, fixed = user.get("tokenFile"), str(user.get("token") or "")
    return (lambda: (path.parent / file).read_text().strip()) if file else (lambda: fixed)


def _data(path: Path, section: Mapping[str, Any], name: str) -> bytes:
    """Returns the content of a field, which is in the file itself as `…-data`, or names another one."""
    try:
        if section.get(f"{name}-data"):
            return base64.b64decode(section[f"{name}-data"], validate=True)
        return (path.parent / section[name]).read_bytes() if section.get(name) else b""
    except OSError as error:
        raise Misconfigured(f"cannot read {name} of the kubeconfig {path}: {error.strerror}") from None
    except (binascii.Error, ValueError):
        raise Misconfigured(f"{name}-data of the kubeconfig {path} is no base64") from None
