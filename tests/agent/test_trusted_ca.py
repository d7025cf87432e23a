"""The CA file of kuma-dp, which is read again."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from structlog.testing import capture_logs

from kuma.agent import trusted_ca
from kuma.app.serving import server_certificate


def authority(directory: Path) -> str:
    return server_certificate.ensure(directory, ("localhost",), datetime.now(UTC)).ca.read_text()


def test_what_envoy_reads_follows_the_file(tmp_path: Path) -> None:
    old, new = authority(tmp_path / "old"), authority(tmp_path / "new")
    file = tmp_path / "ca.crt"
    file.write_text(old)

    def given() -> str:
        assert ca is not None
        (resource,) = json.loads(ca.path.read_text())["resources"]
        return str(resource["validationContext"]["trustedCa"]["inlineString"])

    with trusted_ca.followed(file, tmp_path) as ca:
        assert ca is not None
        directory = ca.path.parent
        assert given() == old
        for bad in ("", new[:200], "nonsense"):
            file.write_text(bad)
            with capture_logs() as logs:
                ca.look()
                ca.look()
            assert {entry["log_level"] for entry in logs} <= {"warning"}
            assert len(logs) <= 1  # the same is said once
            assert given() == old
        file.write_text(old + new)
        blocked = directory / ".ca.json.new"
        blocked.mkdir()  # as on a full disk, nothing can be written beside it
        with capture_logs() as logs:
            ca.look()
            ca.look()
        assert given() == old
        assert [entry["log_level"] for entry in logs] == ["warning"]
        blocked.rmdir()
        ca.look()
        assert given() == old + new
    assert not directory.exists()


def test_a_bootstrap_refers_to_it_and_keeps_the_names(tmp_path: Path) -> None:
    names = [{"sanType": "DNS", "matcher": {"exact": "localhost"}}]
    fixed = {"trustedCa": {"inlineBytes": "AAAA"}, "matchTypedSubjectAltNames": names}
    cluster = {"transportSocket": {"typedConfig": {"commonTlsContext": {"validationContext": fixed}}}}
    made = trusted_ca.with_ca_from(json.dumps({"staticResources": {"clusters": [cluster]}}).encode(), tmp_path / "x")
    context = json.loads(made)["staticResources"]["clusters"][0]["transportSocket"]["typedConfig"]["commonTlsContext"]
    assert "validationContext" not in context
    combined = context["combinedValidationContext"]
    assert combined["defaultValidationContext"] == {"matchTypedSubjectAltNames": names}
    source = combined["validationContextSdsSecretConfig"]["sdsConfig"]["pathConfigSource"]
    assert source == {"path": str(tmp_path / "x"), "watchedDirectory": {"path": str(tmp_path)}}


def test_without_a_file_that_can_change_nothing_is_followed(tmp_path: Path) -> None:
    for file in (None, Path("/dev/fd/0"), tmp_path / "none"):
        with trusted_ca.followed(file, tmp_path) as ca:
            assert ca is None
