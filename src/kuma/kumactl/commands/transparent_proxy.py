"""`kumactl install transparent-proxy` and `kumactl uninstall transparent-proxy`, with the options of the original."""

from __future__ import annotations

import pwd
from typing import Annotated

import typer

from kuma.base import command_line
from kuma.base.errors import Misconfigured
from kuma.transparent_proxy import installation, redirection, ruleset
from kuma.transparent_proxy.redirection import INBOUND_PORT, OUTBOUND_PORT, IpFamilyMode, LeftAlone, Redirection

_DEFAULT_USER, _DEFAULT_UID = "kuma-dp", 5678
_HISTORIC_V6_PORT = 15010
"""The original's default of old, which it takes for the port of IPv4."""
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the rules and change nothing. Needs no root.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print the rules and the commands that are run.")]


def install_transparent_proxy(
    kuma_dp_user: Annotated[
        str, typer.Option(help="User that kuma-dp runs as: what it sends is not redirected. kuma-dp, if there is one.")
    ] = "",
    kuma_dp_uid: Annotated[str, typer.Option("--kuma-dp-uid", "--kuma-dp-UID", help="The same by number.")] = "",
    redirect_outbound_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Dataplane's redirectPortOutbound.")
    ] = OUTBOUND_PORT,
    redirect_inbound: Annotated[
        str, typer.Option(help="false: what others send is not redirected, as before a gateway.")
    ] = "true",
    redirect_inbound_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the Dataplane's redirectPortInbound.")
    ] = INBOUND_PORT,
    redirect_inbound_port_v6: Annotated[
        int | None, typer.Option(help="Deprecated: it is the same as for IPv4; 0 leaves IPv6 alone.")
    ] = None,
    ip_family_mode: Annotated[
        IpFamilyMode, typer.Option(help="ipv4 leaves IPv6 alone: what comes by it is not protected.")
    ] = IpFamilyMode.DUALSTACK,
    exclude_inbound_ports: Annotated[
        str, typer.Option(help="Ports, or ranges, at which others reach this machine in plaintext, such as 22.")
    ] = "",
    exclude_inbound_ips: Annotated[
        list[str] | None, typer.Option(help="Addresses or networks whose calls are not redirected; more than once.")
    ] = None,
    exclude_outbound_ports: Annotated[
        str, typer.Option(help="Ports, or ranges, that are called without the proxy.")
    ] = "",
    exclude_outbound_ips: Annotated[
        list[str] | None,
        typer.Option(help="Addresses or networks that are called without the proxy; more than once."),
    ] = None,
    exclude_outbound_ports_for_uids: Annotated[
        list[str] | None,
        typer.Option(help="Users whose calls are left alone, [tcp:][ports:]uids; more than once."),
    ] = None,
    drop_invalid_packets: Annotated[
        bool, typer.Option("--drop-invalid-packets", help="Drop packets that belong to no connection.")
    ] = False,
    redirect_dns: Annotated[
        bool, typer.Option("--redirect-dns", help="Has no effect: services have no names of their own here.")
    ] = False,
    redirect_all_dns_traffic: Annotated[bool, typer.Option("--redirect-all-dns-traffic", help="The same.")] = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
) -> None:
    """Have the kernel of this machine, or of this network namespace, redirect TCP to the proxy. Needs root.

    Give the Dataplane networking.transparentProxying, run kuma-dp as that user, and install this again to change it:
    the new rules take the place of the old ones in one step. They do not last over a restart of the machine.

    Example: kumactl install transparent-proxy --kuma-dp-user kuma-dp --exclude-inbound-ports 22
    """
    if redirect_dns or redirect_all_dns_traffic:
        reason = "call services by the addresses and ports that they have, or by names of your own DNS"
        command_line.warn(f"DNS is not redirected: there are no names ending in .mesh here; {reason}")
    chosen = Redirection(
        uid=_uid(kuma_dp_user, kuma_dp_uid),
        inbound_port=redirect_inbound_port if _flag("--redirect-inbound", redirect_inbound) else None,
        outbound_port=redirect_outbound_port,
        mode=_mode(ip_family_mode, redirect_inbound_port, redirect_inbound_port_v6),
        excluded_inbound_ports=redirection.ports("--exclude-inbound-ports", exclude_inbound_ports),
        excluded_inbound_addresses=redirection.addresses("--exclude-inbound-ips", ",".join(exclude_inbound_ips or ())),
        excluded_outbound_ports=redirection.ports("--exclude-outbound-ports", exclude_outbound_ports),
        excluded_outbound_addresses=redirection.addresses(
            "--exclude-outbound-ips", ",".join(exclude_outbound_ips or ())
        ),
        left_alone=_left_alone(exclude_outbound_ports_for_uids or ()),
        drops_invalid=drop_invalid_packets,
    )
    if chosen.uid == 0:
        command_line.warn("whatever root sends is not redirected; run kuma-dp as a user of its own")
    if dry_run:
        typer.echo(ruleset.ruleset(chosen), nl=False)
        return
    installation.install(chosen, _tell(verbose))
    typer.echo("# Transparent proxy set up successfully, you can now run kuma-dp using transparent-proxy.")


def uninstall_transparent_proxy(dry_run: DryRun = False, verbose: Verbose = False) -> None:
    """Take the redirection to the proxy out again: all rules of ours, and none of others. Needs root.

    Example: kumactl uninstall transparent-proxy
    """
    if dry_run:
        typer.echo(ruleset.removal(), nl=False)
        return
    installation.uninstall(_tell(verbose))
    typer.echo("# Transparent proxy cleaned up successfully")


def _tell(verbose: bool) -> installation.Tell:
    return lambda text: typer.echo(text.rstrip()) if verbose else None


def _uid(user: str, uid: str) -> int:
    """Returns the id of the user that kuma-dp runs as, as it is given by name or number, or else by the usual name."""
    if uid:
        if not (uid.isascii() and uid.isdecimal() and len(uid) <= 10 and int(uid) < 2**32 - 1):
            raise Misconfigured(f'--kuma-dp-uid "{uid[:100]}" has to be the id of a user')
        return int(uid)
    try:
        return pwd.getpwnam(user or _DEFAULT_USER).pw_uid
    except KeyError:
        pass
    if user:
        raise Misconfigured(
            f'--kuma-dp-user or --kuma-dp-uid should refer to a valid user on the host, "{user}" does not'
        )
    raise Misconfigured(
        f"--kuma-dp-user or --kuma-dp-uid should be supplied: there is no user {_DEFAULT_USER} here; "
        f"make one: useradd -u {_DEFAULT_UID} -U {_DEFAULT_USER}"
    )


def _flag(option: str, text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise Misconfigured(f"{option} {text[:100]}: has to be true or false")
    return text.lower() in ("true", "1", "t")


def _mode(mode: IpFamilyMode, port: int, port_v6: int | None) -> IpFamilyMode:
    if port_v6 in (None, port, _HISTORIC_V6_PORT):
        return mode
    if port_v6 == 0:
        return IpFamilyMode.IPV4
    raise Misconfigured(f"--redirect-inbound-port-v6 {port_v6}: IPv6 goes to the port of --redirect-inbound-port, too")


def _left_alone(texts: list[str] | tuple[str, ...]) -> tuple[LeftAlone, ...]:
    found = (redirection.left_alone("--exclude-outbound-ports-for-uids", text) for text in texts)
    return tuple(those for those in found if those is not None)
