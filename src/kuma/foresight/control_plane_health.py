"""Examines the control planes over a store, and their settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from kuma.foresight.findings import Finding, Problem, findings
from kuma.pki.validity import Validity
from kuma.resources import tags as tag_rules

_CLOCK_OFF = timedelta(seconds=30)


def examine(
    configuration: Mapping[str, Any], instances: Sequence[Mapping[str, Any]], shown: Validity | None, now: datetime
) -> tuple[Finding, ...]:
    """Returns what is found of a control plane's settings, of the certificate that it shows, and of all that are there.

    Settings and control planes are as the API shows them.
    """
    return settings(configuration) + control_planes(instances) + (certificate(shown, now) if shown else ())


def certificate(shown: Validity, now: datetime) -> tuple[Finding, ...]:
    """Returns whether the certificate of the control plane's servers ends soon, or has ended."""
    told = shown.told(now)
    remedy = (
        "replace its files, which are read again; on Kubernetes the Secret, or see in the log why it is not renewed"
    )
    problems: list[Problem] = [("failure" if shown.ends <= now else "warning", told, remedy)] if told else []
    return tuple(findings("", "server certificate", problems, f"it ends at {shown.ends:%Y-%m-%d %H:%M} UTC"))


def control_planes(instances: Sequence[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """Returns what is wrong with the control planes over a store, as the API shows them."""
    problems: list[Problem] = []
    for one in instances:
        ahead = float(one["clockDifferenceSeconds"])
        if abs(ahead) >= _CLOCK_OFF.total_seconds():
            how = "ahead of" if ahead > 0 else "behind"
            found = f"{one['name']}: its clock, or its word, is {abs(ahead):.0f} s {how} the one that answers"
            problems.append(("warning", found, "synchronise their clocks; see whether it is stopped or overloaded"))
    versions = sorted({str(one["version"]) for one in instances})
    if len(versions) > 1:
        found = f"control planes of several versions: {', '.join(versions)}"
        problems.append(("warning", found, "bring all to one version once the upgrade is complete"))
    if instances and not any(one["leader"] for one in instances):
        problems.append(("failure", "no control plane leads: changes are not carried on", "see the logs and the store"))
    return tuple(findings("", "control planes", problems, "they are of one version, and their clocks agree"))


def settings(configuration: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Returns what is unsafe of the control plane's settings."""
    api, access = configuration.get("apiServer", {}), configuration.get("access", {})
    authn = api.get("authn", {})
    http = api.get("http", {})
    problems: list[Problem] = []
    if access.get("anonymousReads"):
        problems.append(
            ("warning", "whoever reaches the API reads what is not secret", "unset KUMA_ACCESS_ANONYMOUS_READS")
        )
    if tag_rules.ANY in authn.get("localhostAdminUsers", ()):
        remedy = "name users in KUMA_API_SERVER_AUTHN_LOCALHOST_ADMIN_USERS"
        problems.append(("failure", "everybody on the control plane's machine is administrator", remedy))
    if http.get("enabled") and not _is_local(str(http.get("interface", ""))):
        remedy = "let others use HTTPS, and set KUMA_API_SERVER_HTTP_INTERFACE=127.0.0.1"
        problems.append(
            ("warning", "the API is served in plaintext to other machines: tokens travel in the clear", remedy)
        )
    if not configuration.get("xdsServer", {}).get("observedTraffic", True):
        problems.append(
            ("warning", "observed traffic is off: nobody knows who calls", "unset KUMA_XDS_SERVER_OBSERVED_TRAFFIC")
        )
    return tuple(findings("", "settings", problems, "no setting is unsafe"))


def _is_local(interface: str) -> bool:
    return interface in ("localhost", "::1") or interface.startswith("127.")
