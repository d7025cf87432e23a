"""Settings from the environment, with the names of the original."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kuma.app.configuration import setting_names, settings, settings_file
from kuma.base.errors import Misconfigured


@pytest.mark.parametrize(("variable", "values"), setting_names.FIXED.items())
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


def test_a_leader_ends_before_another_one_begins() -> None:
    names = [f"KUMA_RUNTIME_KUBERNETES_LEADER_ELECTION_{name}" for name in ("LEASE_DURATION", "RENEW_DEADLINE")]
    found = settings_file.load(environment=dict(zip(names, ("60s", "40s"), strict=True))).runtime.kubernetes
    assert (found.leader_election.lease_duration.seconds, found.leader_election.renew_deadline.seconds) == (60, 40)
    for given in (("10s", "10s"), ("15s", "1s")):
        with pytest.raises(Misconfigured, match="a leader has to end before another one begins"):
            settings_file.load(environment=dict(zip(names, given, strict=True)))


def test_other_stores_are_refused_by_name() -> None:
    with pytest.raises(Misconfigured, match="KUMA_STORE_TYPE"):
        settings_file.load(environment={"KUMA_STORE_TYPE": "etcd"})


OF_POSTGRES = {
    "HOST": "db.example", "PORT": "5432", "USER": "u", "PASSWORD": "a-secret", "DB_NAME": "d",
    "DRIVER_NAME": "postgres", "CONNECTION_TIMEOUT": "7", "MAX_OPEN_CONNECTIONS": "9",
    "MAX_IDLE_CONNECTIONS": "8", "MIN_OPEN_CONNECTIONS": "2",
    "MAX_CONNECTION_LIFETIME": "30m", "TLS_MODE": "verifyFull", "TLS_CA_PATH": "ca", "TLS_CERT_PATH": "c",
    "TLS_KEY_PATH": "k", "MAX_CONNECTION_LIFETIME_JITTER": "1m", "HEALTH_CHECK_INTERVAL": "30s",
    "MIN_RECONNECT_INTERVAL": "10s", "MAX_RECONNECT_INTERVAL": "60s", "MAX_LIST_QUERY_ELEMENTS": "0",
    "READ_REPLICA_HOST": "replica", "MAX_CONNECTION_IDLE_TIME": "30m", "TLS_DISABLE_SSLSNI": "false",
}  # fmt: skip


def test_one_connection_to_postgres_is_too_few() -> None:
    with pytest.raises(Misconfigured, match="maxOpenConnections is 2 at least, or 0"):
        settings_file.load(environment={"KUMA_STORE_POSTGRES_MAX_OPEN_CONNECTIONS": "1"})


def test_postgres_with_everything_that_the_original_takes_and_the_password_shown_nowhere() -> None:
    environment = {f"KUMA_STORE_POSTGRES_{name}": value for name, value in OF_POSTGRES.items()}
    with capture_logs() as logs:
        found = settings_file.load(environment={"KUMA_STORE_TYPE": "postgres", **environment})
    postgres = found.store.postgres
    assert (postgres.host, postgres.port, postgres.db_name, postgres.tls.mode) == (
        "db.example",
        5432,
        "d",
        "verifyFull",
    )
    assert postgres.password.get_secret_value() == "a-secret"
    shown = f"{found!r}{found.model_dump_json()}{found.model_dump(mode='json')}{logs}"
    assert "a-secret" not in shown
    assert "KUMA_STORE_POSTGRES_READ_REPLICA_HOST" in str(logs)
    assert "KUMA_STORE_POSTGRES_HOST" not in str(logs)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"TLS_MODE": "prefer"}, "KUMA_STORE_POSTGRES_TLS_MODE"),
        ({"DRIVER_NAME": "mysql"}, "KUMA_STORE_POSTGRES_DRIVER_NAME"),
        ({"TLS_CERT_PATH": "c"}, "store.postgres.tls.keyPath are given together"),
        ({"MIN_OPEN_CONNECTIONS": "30"}, "minOpenConnections is more than"),
        ({"PASSWORD": "a-secret", "PORT": "a-port"}, "KUMA_STORE_POSTGRES_PORT"),
    ],
)
def test_settings_of_postgres_that_cannot_be(given: dict[str, str], complaint: str) -> None:
    environment = {f"KUMA_STORE_POSTGRES_{name}": value for name, value in given.items()}
    with pytest.raises(Misconfigured, match=complaint) as refused:
        settings_file.load(environment={"KUMA_STORE_TYPE": "postgres", **environment})
    assert "a-secret" not in str(refused.value)


@pytest.mark.parametrize(
    "variable",
    ["KUMA_API_SERVER_LIMITS_HEAD_TIMEOUT", "KUMA_XDS_SERVER_SEND_TIMEOUT", "KUMA_XDS_SERVER_CONNECTION_DRAIN"],
)
def test_a_time_that_is_none_is_refused(variable: str) -> None:
    with pytest.raises(Misconfigured, match=r"(Timeout|Drain) has to be one whole number"):
        settings_file.load(environment={variable: "soon"})


def test_an_empty_path_is_none_and_not_the_current_directory() -> None:
    paths = ("_FILE", "_CERTS_DIR", "_PATH")
    empty = {variable: "" for variable, _ in setting_names.variables() if variable.endswith(paths)}
    assert len(empty) == 11
    assert settings_file.load(environment=empty) == settings.Settings()


def test_required_client_certificates_cannot_be_verified_by_an_empty_path() -> None:
    given = {"KUMA_API_SERVER_HTTPS_REQUIRE_CLIENT_CERT": "true", "KUMA_API_SERVER_AUTH_CLIENT_CERTS_DIR": ""}
    with pytest.raises(Misconfigured, match="requireClientCert needs"):
        settings_file.load(environment=given)


def written(directory: Path, text: str) -> Path:
    file = directory / "kuma-cp.yaml"
    file.write_text(text)
    return file


BEGINNING = """\
mode: zone
environment: universal
store: {type: memory, postgres: {host: 127.0.0.1, password: kuma, tls: {mode: disable}}, cache: {enabled: true}}
apiServer: {readOnly: false, basePath: /, authn: {type: tokens}, http: {port: 5691}, corsAllowedDomains: [".*"]}
dpServer: {auth: {type: dpToken}, tlsMinVersion: TLSv1_2, tlsCipherSuites: [], hds: {enabled: true}}
general: {tlsCertFile: "", tlsMinVersion: TLSv1_2, dnsCacheTTL: 10s}
multizone: {zone: {name: "", kds: {refreshInterval: 1s}}}
runtime: {universal: {dataplaneCleanupAge: 72h}}
reports: {enabled: true}
defaults: {skipMeshCreation: false, enableLocalhostInboundClusters: false}
access: {type: static, static: {viewConfigDump: {users: [], groups: ["mesh-system:admin"]}}}
interCp: {catalog: {heartbeatInterval: 5s}, server: {port: 5683, tlsMinVersion: TLSv1_2, tlsCipherSuites: []}}
proxy: {gateway: {globalDownstreamMaxConnections: 50000}}
"""


def test_a_file_of_the_original_is_taken_for_what_there_is(tmp_path: Path) -> None:
    with capture_logs() as logs:
        found = settings_file.load(written(tmp_path, BEGINNING), {})
    assert found.api_server.http.port == 5691
    assert found.store.type == "sqlite"
    assert found.access.static.get_config_dump.groups == ("mesh-system:admin",)
    (told,) = logs
    assert "multizone.zone.kds.refreshInterval" in told["settings"]
    assert "store.postgres.password" in told["settings"]
    assert "127.0.0.1" not in str(told)
    with pytest.raises(Misconfigured, match=r"general\.strict is set: .*reports\.enabled"):
        settings_file.load(written(tmp_path, BEGINNING), {"KUMA_GENERAL_STRICT": "true"})


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        (
            "dpServer: {tlsCipherSuites: [TLS_AES_256_GCM_SHA384]}",
            ["dpServer.tlsCipherSuites in FILE cannot be chosen"],
        ),
        ("mode: global", ['mode in FILE cannot be "global" here, only "zone" or "standalone"']),
        ("defaults: {enableLocalhostInboundClusters: true}", ["set serviceAddress to 127.0.0.1 at the inbounds"]),
        ("apiServer: {readOnly: true}", ['apiServer.readOnly in FILE cannot be "true" here, only "false"']),
        (
            "apiServer: {http: {prot: 1}}\nmod: zone",
            [
                "unknown setting apiServer.http.prot in FILE; did you mean apiServer.http.port?",
                "unknown setting mod in",
            ],
        ),
        (
            "store: {type: etcd, sqlitePathh: x}",
            ["store.type in FILE: etcd is not available here, only sqlite or postgres"],
        ),
    ],
)
def test_file_and_environment_refuse_the_same(tmp_path: Path, text: str, complaints: list[str]) -> None:
    file = written(tmp_path, text)
    with pytest.raises(Misconfigured) as refused:
        settings_file.load(file, {})
    for complaint in complaints:
        assert complaint.replace("FILE", str(file)) in str(refused.value)
    if "etcd" in text:
        assert "sqlitePathh" not in str(refused.value)


def test_a_choice_is_judged_before_what_depends_on_it() -> None:
    environment = {"KUMA_STORE_ETCD_X": "db", "KUMA_STORE_TYPE": "etcd", "KUMA_NONSENSE": "kuma"}
    with pytest.raises(Misconfigured) as refused:
        settings_file.load(environment=environment)
    assert str(refused.value) == "KUMA_STORE_TYPE: etcd is not available here, only sqlite or postgres or kubernetes"


def test_all_unknown_variables_are_told_at_once_and_none_is_taken_for_another() -> None:
    unknown = {"KUMA_API_SERVER_HTTP_PROT": "1", "KUMA_NONSENSE": "1"}
    with pytest.raises(Misconfigured) as refused:
        settings_file.load(environment={**unknown, "KUMA_XDS_SERVER_DATAPLANE_CONFIGURATION_REFRESH_INTERVAL": "1s"})
    assert str(refused.value) == (
        "environment variable KUMA_API_SERVER_HTTP_PROT sets nothing; did you mean KUMA_API_SERVER_HTTP_PORT?; "
        "environment variable KUMA_NONSENSE sets nothing"
    )


@pytest.mark.parametrize(
    "asked", [{"KUMA_DIAGNOSTICS_TLS_ENABLED": "true"}, {"KUMA_DIAGNOSTICS_TLS_CERT_FILE": "c.pem"}]
)
def test_diagnostics_are_not_served_in_plaintext_to_others_where_tls_is_asked_for(asked: dict[str, str]) -> None:
    elsewhere = {"KUMA_DIAGNOSTICS_SERVER_INTERFACE": "0.0.0.0"}
    with pytest.raises(Misconfigured, match=f"{next(iter(asked))}: diagnostics are served without TLS, and at 0.0.0.0"):
        settings_file.load(environment={**elsewhere, **asked})
    settings_file.load(environment=asked)
    settings_file.load(environment=elsewhere)
    settings_file.load(environment={**elsewhere, "KUMA_DIAGNOSTICS_TLS_ENABLED": "false"})


def test_more_workers_than_one_need_postgresql() -> None:
    many = {"KUMA_GENERAL_WORKERS": "2"}
    assert settings_file.load(environment={**many, "KUMA_STORE_TYPE": "postgres"}).general.workers == 2
    for store in ("sqlite", "memory"):
        with pytest.raises(Misconfigured, match=r"general\.workers .* can only be 1 here: .* \(KUMA_STORE_TYPE\)"):
            settings_file.load(environment={**many, "KUMA_STORE_TYPE": store})
    with pytest.raises(Misconfigured, match="on Kubernetes replicas share the work"):
        settings_file.load(environment={**many, "KUMA_STORE_TYPE": "kubernetes", "KUMA_ENVIRONMENT": "kubernetes"})
    for wrong in ("0", "65", "many"):
        with pytest.raises(Misconfigured, match="KUMA_GENERAL_WORKERS"):
            settings_file.load(environment={"KUMA_GENERAL_WORKERS": wrong, "KUMA_STORE_TYPE": "postgres"})
    with pytest.raises(Misconfigured, match="--workers"):
        settings_file.with_workers(settings.Settings(), 2)
