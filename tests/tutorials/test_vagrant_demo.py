"""The marketplace of the original's vagrant demo, retold: seven machines are processes, settings come from their units.

Kong, in front of the mesh, calls the frontend; that calls the backend, of which there are two versions; those call a
store of items (PostgreSQL) and one of reviews (Redis). Differences are in the table in `docs/compatibility.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.tutorials.place import Place, place

SERVICES = ("redis", "postgresql", "backend", "backend-v1", "frontend", "kong")
RUNS = "the proxy runs"
MTLS = """type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends:
  - name: ca-1
    type: builtin"""
PERMISSION = """echo "type: TrafficPermission
name: {name}
mesh: default
sources:
- match:
    kuma.io/service: '{source}'
destinations:
- match:
    kuma.io/service: '{destination}'" | kumactl apply -f -"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("vagrant")) as found:
        found.terminal("kuma-cp run", says="mesh created")
        found.type('kumactl config control-planes add --name=vagrant --address="$API"')
        ports = ("IN", "APP", "ADMIN")
        found.take(*(f"{_variable(name)}_{port}" for name in SERVICES for port in ports))
        found.take("TO_REDIS", "TO_POSTGRESQL", "TO_REDIS_1", "TO_POSTGRESQL_1", "TO_BACKEND", "TO_FRONTEND", "METRICS")
        applications(found)
        for name in SERVICES:
            machine(found, name)
        yield found


def _variable(name: str) -> str:
    return name.replace("-", "_").upper()


def applications(here: Place) -> None:
    value = here.variables.__getitem__
    here.workload("kv", value("REDIS_APP"))
    here.workload("kv", value("POSTGRESQL_APP"))
    here.workload("shop", value("BACKEND_APP"), "v0", value("TO_POSTGRESQL"), value("TO_REDIS"))
    here.workload("shop", value("BACKEND_V1_APP"), "v1", value("TO_POSTGRESQL_1"), value("TO_REDIS_1"))
    here.workload("front", value("FRONTEND_APP"), value("TO_BACKEND"))


OUTBOUNDS = {
    "backend": {"TO_REDIS": "redis", "TO_POSTGRESQL": "postgresql"},
    "backend-v1": {"TO_REDIS_1": "redis", "TO_POSTGRESQL_1": "postgresql"},
    "frontend": {"TO_BACKEND": "backend"},
    "kong": {"TO_FRONTEND": "frontend"},
}
TAGS = {
    "backend": "kuma.io/service: backend, version: v0, kuma.io/protocol: http",
    "backend-v1": "kuma.io/service: backend, version: v1, kuma.io/protocol: http",
    "frontend": "kuma.io/service: frontend, kuma.io/protocol: http",
}


def machine(here: Place, name: str) -> None:
    """Its Dataplane is applied from the machine, then its unit starts the proxy."""
    variable, tags = _variable(name), TAGS.get(name, f"kuma.io/service: {name}")
    inbound = f"inbound: [{{port: ${variable}_IN, servicePort: ${variable}_APP, tags: {{{tags}}}}}]"
    side = f"gateway: {{tags: {{{tags}}}}}" if name == "kong" else inbound
    called = OUTBOUNDS.get(name, {}).items()
    calls = ", ".join(f"{{port: ${port}, tags: {{kuma.io/service: {to}}}}}" for port, to in called)
    here.type(
        f"""cat > {name}.yaml <<EOF
type: Dataplane
mesh: default
name: {name}
networking:
  address: {{{{ DATAPLANE_IP }}}}
  admin: {{port: ${variable}_ADMIN}}
  {side}
  outbound: [{calls}]
EOF
kumactl apply -f {name}.yaml --var DATAPLANE_IP=127.0.0.1
umask 077
kumactl generate dataplane-token --name={name} > {name}.token"""
    )
    here.terminal(
        "kuma-dp run",
        {
            "KUMA_CONTROL_PLANE_URL": here.variables["CP"],
            "KUMA_CONTROL_PLANE_CA_CERT_FILE": str(here.home / ".kuma" / "ca.crt"),
            "KUMA_DATAPLANE_MESH": "default",
            "KUMA_DATAPLANE_NAME": name,
            "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH": str(here.home / f"{name}.token"),
            "KUMA_DATAPLANE_ADMIN_PORT": here.variables[f"{variable}_ADMIN"],
        },
        says=RUNS,
    )


def page(here: Place, *shown: str) -> str:
    """The marketplace through Kong, once it is one of these: `*` is any number."""
    wanted = [re.compile(one.replace("*", r"\d+")) for one in shown]
    return here.reads("TO_FRONTEND", lambda text: any(one.fullmatch(text) for one in wanted))


def test_the_marketplace_with_all_its_services(here: Place) -> None:
    for version in ("v0", "v1"):
        page(here, f"{version} * *")
    online = here.shows("kumactl inspect dataplanes", lambda shown: shown.count("Online") == len(SERVICES))
    assert "kuma.io/protocol=http kuma.io/service=backend version=v0" in online


def test_mutual_tls_and_permissions_one_by_one(here: Place) -> None:
    here.type(f'echo "{MTLS}" | kumactl apply -f -')
    here.type("kumactl inspect meshes --watch default")
    here.gets("TO_FRONTEND", status=403)
    here.type(PERMISSION.format(name="permission-all", source="*", destination="*"))
    page(here, "v0 * *", "v1 * *")
    here.type("kumactl delete traffic-permission permission-all")
    here.gets("TO_FRONTEND", status=403)
    for source, destination in (("kong", "frontend"), ("frontend", "backend"), ("backend", "postgresql")):
        name = f"{source}-to-{destination}"
        here.type(PERMISSION.format(name=name, source=source, destination=destination))
    page(here, "v0 * -", "v1 * -")  # without reviews
    here.type(PERMISSION.format(name="backend-to-redis", source="backend", destination="redis"))
    page(here, "v0 * *", "v1 * *")
    assert here.type("kumactl get traffic-permissions").count("-to-") == 4


NOT_DONE = {
    "TrafficRoute": "conf: {split: [{weight: 80, destination: {kuma.io/service: backend, version: v0}}]}",
    "HealthCheck": "conf: {interval: 10s, timeout: 2s, unhealthyThreshold: 3, healthyThreshold: 1, tcp: {}}",
    "FaultInjection": "conf: {abort: {httpStatus: 500, percentage: 50}}",
}


@pytest.mark.parametrize("kind", NOT_DONE)
def test_other_policies_are_taken_with_a_warning(here: Place, kind: str) -> None:
    said = here.tried(
        f"""echo "type: {kind}
name: frontend-to-backend
mesh: default
sources: [{{match: {{kuma.io/service: frontend}}}}]
destinations: [{{match: {{kuma.io/service: backend}}}}]
{NOT_DONE[kind]}" | kumactl apply -f -"""
    )
    assert (said.returncode, f"Warning: {kind} is stored and given back" in said.stderr) == (0, True), said.stderr
    page(here, "v0 * *", "v1 * *")


def test_metrics(here: Place) -> None:
    """Of one proxy here: on one machine they would need a port each."""
    here.type(
        f"""echo "{MTLS}
metrics:
  enabledBackend: prometheus-1
  backends:
  - name: prometheus-1
    type: prometheus
    conf: {{skipMTLS: true, port: $METRICS, path: /metrics}}" | kumactl apply -f -"""
    )
    here.reads("METRICS", lambda text: "envoy_cluster_upstream_cx_total" in text, path="/metrics")
    page(here, "v0 * *", "v1 * *")


def test_a_backend_that_is_gone_is_replaced_by_the_other(here: Place) -> None:
    here.type("kumactl delete dataplane backend")
    answers: list[str] = []

    def only_v1(text: str) -> bool:
        answers.append(text)
        return len(answers) > 8 and all(answer.startswith("v1 ") for answer in answers[-8:])

    here.reads("TO_FRONTEND", only_v1)
