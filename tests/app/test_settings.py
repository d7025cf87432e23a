"""Settings from the environment, with the names of the original."""

import pytest

from kuma.app import settings, settings_file
from kuma.base.errors import Misconfigured


@pytest.mark.parametrize(("variable", "values"), settings_file.FIXED.items())
def test_what_goes_without_saying_may_be_said(variable: str, values: tuple[str, ...]) -> None:
    for value in values:
        assert settings_file.load(environment={variable: value}) == settings.Settings()
    with pytest.raises(Misconfigured, match=f'{variable} cannot be "other" here, only "'):
        settings_file.load(environment={variable: "other"})


def test_certificates_by_the_names_of_the_original() -> None:
    ca = {"KUMA_GENERAL_TLS_CA_FILE": "ca"}
    for server in ("API_SERVER_HTTPS", "DP_SERVER"):
        names = {f"KUMA_{server}_TLS_CERT_FILE": "c", f"KUMA_{server}_TLS_KEY_FILE": "k"}
        general = settings_file.load(environment={**names, **ca}).general
        assert (str(general.tls_cert_file), str(general.tls_key_file)) == ("c", "k")
    with pytest.raises(Misconfigured, match="are one setting here"):
        settings_file.load(
            environment={"KUMA_DP_SERVER_TLS_CERT_FILE": "a", "KUMA_API_SERVER_HTTPS_TLS_CERT_FILE": "b"}
        )
    with pytest.raises(Misconfigured, match="are one setting here"):
        settings_file.load(environment={"KUMA_DP_SERVER_TLS_CERT_FILE": "a", "KUMA_GENERAL_TLS_CERT_FILE": "b"})


def test_a_time_limit_by_the_name_of_the_original() -> None:
    limits = settings_file.load(environment={"KUMA_DP_SERVER_READ_HEADER_TIMEOUT": "3s"}).dp_server.limits
    assert limits.head_timeout == "3s"


def test_other_stores_are_refused_by_name() -> None:
    with pytest.raises(Misconfigured, match="KUMA_STORE_TYPE"):
        settings_file.load(environment={"KUMA_STORE_TYPE": "postgres"})


@pytest.mark.parametrize(
    "variable",
    ["KUMA_API_SERVER_LIMITS_HEAD_TIMEOUT", "KUMA_XDS_SERVER_SEND_TIMEOUT", "KUMA_XDS_SERVER_CONNECTION_DRAIN"],
)
def test_a_time_that_is_none_is_refused(variable: str) -> None:
    with pytest.raises(Misconfigured, match=r"(Timeout|Drain) has to be one whole number"):
        settings_file.load(environment={variable: "soon"})


def test_an_empty_path_is_none_and_not_the_current_directory() -> None:
    paths = ("_FILE", "_CERTS_DIR", "_PATH")
    empty = {variable: "" for variable, _ in settings_file.variables() if variable.endswith(paths)}
    assert len(empty) == 8
    assert settings_file.load(environment=empty) == settings.Settings()


def test_required_client_certificates_cannot_be_verified_by_an_empty_path() -> None:
    given = {"KUMA_API_SERVER_HTTPS_REQUIRE_CLIENT_CERT": "true", "KUMA_API_SERVER_AUTH_CLIENT_CERTS_DIR": ""}
    with pytest.raises(Misconfigured, match="requireClientCert needs"):
        settings_file.load(environment=given)
