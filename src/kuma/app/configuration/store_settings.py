"""Settings of the store: SQLite, PostgreSQL, or the Kubernetes API."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, SecretStr

from kuma.app.configuration.section import MaybePath, Port, Section
from kuma.resources.duration import Duration


class PostgresTlsSection(Section):
    """TLS towards PostgreSQL."""

    mode: Literal["disable", "verifyNone", "verifyCa", "verifyFull"] = Field(
        "disable",
        description="`disable`; or TLS that verifies nothing, that the server's certificate is of the CA, or its name, "
        "too.",
    )
    ca_path: MaybePath = Field(None, description="CA of the server's certificate, PEM. That of the system if empty.")
    cert_path: MaybePath = Field(None, description="Certificate of the client, PEM.")
    key_path: MaybePath = Field(None, description="Key of that certificate, PEM.")


class PostgresSection(Section):
    """PostgreSQL, for `store.type: postgres`. Instances over one database act as one control plane."""

    host: str = Field("127.0.0.1", description="Host of the database.")
    port: Port = Field(15432, description="Port of the database.")
    user: str = Field("kuma", description="User.")
    password: SecretStr = Field(SecretStr("kuma"), description="Password of the user. It is shown nowhere.")
    db_name: str = Field("kuma", description="Name of the database.")
    driver_name: Literal["pgx", "postgres"] = Field(
        "pgx", description="Either name of the original; the driver is always the same one."
    )
    connection_timeout: PositiveInt = Field(5, description="Seconds that connecting may take.")
    max_open_connections: NonNegativeInt = Field(
        20, description="Connections at once; 0 for any number. The server allows 100 to all its clients by default."
    )
    max_idle_connections: int = Field(20, description="Of these, how many are kept when they are not needed.")
    min_open_connections: NonNegativeInt = Field(0, description="Connections that are made at the start.")
    max_connection_lifetime: Duration = Field(
        Duration("1h"), description="How old a connection may be that is taken up again."
    )
    tls: PostgresTlsSection = PostgresTlsSection()


def _kept(kind: object) -> object:
    return "sqlite" if kind == "memory" else kind


class KubernetesStoreSection(Section):
    """Settings of the store over the Kubernetes API."""

    system_namespace: str = Field(
        "kuma-system", description="Namespace of the control plane, of its Secrets and of the policies."
    )
    kubeconfig: MaybePath = Field(
        None, description="kubeconfig file that says where the API server is. The Pod's own ServiceAccount if empty."
    )


class StoreSection(Section):
    """Settings of the store."""

    type: Annotated[Literal["sqlite", "postgres", "kubernetes"], BeforeValidator(_kept)] = Field(
        "sqlite",
        description="Kind of store: `sqlite`, for one control plane, `postgres`, for several, or `kubernetes`, for "
        "those in a cluster. `memory`, the original's default, is taken for `sqlite`: it is kept on disk.",
    )
    kubernetes: KubernetesStoreSection = KubernetesStoreSection()
    postgres: PostgresSection = PostgresSection()
    sqlite_path: MaybePath = Field(None, description="Database file. `kuma.db` in the work directory if empty.")
    encryption_key_file: MaybePath = Field(
        None,
        description="Key that seals Secrets: 32 bytes in base64, mode 0600. Beside the SQLite database if empty. All "
        "control planes over one PostgreSQL have the same.",
    )
