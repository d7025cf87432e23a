"""Options of the original's kuma-dp, as tutorials and systemd units give them."""

import os
import subprocess
from pathlib import Path

import pytest

from demo.processes import BIN
from kuma.agent import original_options
from kuma.base.errors import Misconfigured

OURS = ("run", "--cp-address=https://localhost:5678", "--dataplane-file=dp.yaml")


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        (("--dns-enabled=false",), ""),
        (("--dns-enabled",), "--dns-enabled has no effect here: services have no host names"),
        (("--dns-enabled=true",), "--dns-enabled has no effect here"),
        (("--dns-coredns-port", "15053"), "--dns-coredns-port has no effect here"),
        (("--proxy-type=dataplane",), ""),
        (("--proxy-type", "dataplane"), ""),
        (("--config-dir", "/etc/kuma"), "--config-dir has no effect here: nothing is written"),
        (("--opa-enabled=false",), ""),
        (("--skip-verify=false",), ""),
        (("--log-max-size=100",), "--log-max-size has no effect here: rotate the file by other means"),
    ],
)
def test_what_asks_for_nothing_here_is_taken(given: tuple[str, ...], warned: str) -> None:
    taken = original_options.take((OURS[0], *given, *OURS[1:]))
    assert taken.arguments == OURS
    assert len(taken.warnings) == bool(warned)
    assert warned in "".join(taken.warnings)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("--skip-verify", "give its CA with --ca-cert-file"),
        ("--proxy-type=ingress", "there is one zone"),
        ("--opa-enabled", "there is no OPA agent here"),
    ],
)
def test_what_would_be_unsafe_to_pass_over_is_refused_with_the_remedy(given: str, remedy: str) -> None:
    with pytest.raises(Misconfigured, match=remedy):
        original_options.take(("run", given))


@pytest.mark.parametrize(
    ("name", "value", "warned"),
    [
        ("KUMA_DNS_ENABLED", "false", ""),
        ("KUMA_DNS_ENABLED", "true", "services have no host names"),
        ("KUMA_DNS_CORE_DNS_PORT", "15053", "services have no host names"),
        ("KUMA_DATAPLANE_PROXY_TYPE", "dataplane", ""),
        ("KUMA_DATAPLANE_RUNTIME_CONFIG_DIR", "/etc/kuma", "nothing is written to a directory"),
        ("KUMA_DATAPLANE_ADMIN_PORT", "9901", "networking.admin.port"),
        ("KUMA_CONTROL_PLANE_API_SERVER_URL", "http://cp:5681", "KUMA_CONTROL_PLANE_URL says where"),
        ("KUMA_CONTROL_PLANE_URL", "https://cp:5678", ""),
        ("KUMA_DATAPLANE_NONSENSE", "1", "the environment variable KUMA_DATAPLANE_NONSENSE has no effect here"),
    ],
)
def test_variables_are_judged_as_options_are(name: str, value: str, warned: str) -> None:
    warnings = list(original_options.unread({name: value}, frozenset({"KUMA_CONTROL_PLANE_URL"})))
    assert len(warnings) == bool(warned)
    assert warned in "".join(warnings)
    with pytest.raises(Misconfigured, match="there is one zone"):
        list(original_options.unread({"KUMA_DATAPLANE_PROXY_TYPE": "ingress"}, frozenset()))


def test_our_own_options_stay_as_they_are() -> None:
    arguments = (*OURS, "-v", "name=--dns-enabled", "--log-level=info")
    assert original_options.take(arguments).arguments == arguments


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    dataplane = "{type: Dataplane, name: d, networking: {address: 127.0.0.1, gateway: {tags: {kuma.io/service: d}}}}"
    (directory / "dp.yaml").write_text(dataplane)
    (directory / "token").write_text("t")
    return subprocess.run(
        [BIN / "kuma-dp", "run", "--dataplane-file=dp.yaml", "--dataplane-token-file=token", *arguments],
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_ca_may_stand_in_the_environment_and_what_nothing_reads_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, KUMA_CONTROL_PLANE_CA_CERT="no certificate", KUMA_DATAPLANE_ADMIN_PORT="1")
    assert done.returncode == 1
    assert "does not hold a certificate in PEM" in done.stderr
    assert "Warning: the environment variable KUMA_DATAPLANE_ADMIN_PORT has no effect here" in done.stderr
    file = run(tmp_path, "--ca-cert-file=missing", KUMA_CONTROL_PLANE_CA_CERT="no certificate")
    assert "--ca-cert-file missing: No such file or directory" in file.stderr


def test_the_log_may_go_to_a_file_that_its_owner_alone_reads(tmp_path: Path) -> None:
    done = run(tmp_path, "--log-output-path", "dp.log", "--ca-cert-file=missing")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    assert "--ca-cert-file missing: No such file or directory" in (tmp_path / "dp.log").read_text()
    assert (tmp_path / "dp.log").stat().st_mode & 0o777 == 0o600
    assert "--log-output-path no/such.log: No such file" in run(tmp_path, "--log-output-path=no/such.log").stderr
