"""Kuma's tutorials on Universal, retold: their commands, in their order, with processes for their containers.

Differences are in the table at the end of `docs/compatibility.md`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tutorials.place import Place, place

ALLOW_ALL = """
echo 'type: MeshTrafficPermission
name: allow-all
mesh: default
spec:
  targetRef:
    kind: Mesh
  from:
    - targetRef:
        kind: Mesh
      default:
        action: Allow' | kumactl apply -f -
"""
RUNS = "the proxy runs"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """`certificates`: the control plane has a certificate of the user's own, which its proxies and kumactl verify."""
    with place(tmp_path_factory.mktemp("home")) as found:
        found.type(
            "kumactl generate tls-certificate --type=server --hostname=localhost --cert-file=tls.crt --key-file=tls.key"
        )
        found.type("cp tls.crt ca.crt")
        files = {
            "KUMA_GENERAL_TLS_CERT_FILE": str(found.home / "tls.crt"),
            "KUMA_GENERAL_TLS_KEY_FILE": str(found.home / "tls.key"),
        }
        found.terminal("kuma-cp run", files, says="mesh created")
        found.type('kumactl config control-planes add --name=here --address="$API_HTTPS" --ca-cert-file=ca.crt')
        quickstart(found)
        yield found


def quickstart(here: Place) -> None:
    """The demo application and its store, each beside a proxy; mutual TLS, and a permission for everybody."""
    here.take("REDIS", "REDIS_IN", "REDIS_OUT", "APP", "APP_IN", "ADMIN_1", "ADMIN_2")
    here.workload("kv", here.variables["REDIS"])
    here.workload("app", here.variables["APP"], here.variables["REDIS_OUT"])
    here.type(
        "umask 077; kumactl generate dataplane-token --tag kuma.io/service=redis --valid-for=720h > kuma-token-redis"
    )
    here.type("umask 077; kumactl generate dataplane-token --tag kuma.io/service=app --valid-for=720h > kuma-token-app")
    here.terminal(
        """kuma-dp run --cp-address=$CP/ --dns-enabled=false --dataplane-token-file=kuma-token-redis \
        --ca-cert-file=ca.crt --dataplane="
        type: Dataplane
        mesh: default
        name: redis
        networking:
          address: 127.0.0.1
          inbound:
            - port: $REDIS_IN
              servicePort: $REDIS
              serviceAddress: 127.0.0.1
              tags:
                kuma.io/service: redis
                kuma.io/protocol: tcp
          admin:
            port: $ADMIN_1"
        """,
        says=RUNS,
    )
    here.terminal(
        """kuma-dp run --cp-address=$CP/ --dns-enabled=false --dataplane-token-file=kuma-token-app \
        --ca-cert-file=ca.crt --dataplane="
        type: Dataplane
        mesh: default
        name: app
        networking:
          address: 127.0.0.1
          outbound:
            - port: $REDIS_OUT
              tags:
                kuma.io/service: redis
          inbound:
            - port: $APP_IN
              servicePort: $APP
              serviceAddress: 127.0.0.1
              tags:
                kuma.io/service: app
                kuma.io/protocol: http
          admin:
            port: $ADMIN_2"
        """,
        says=RUNS,
    )
    assert int(here.gets("APP")) > 0
    here.type(ALLOW_ALL)
    here.type(
        """echo 'type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends:
  - name: ca-1
    type: builtin' | kumactl apply -f -"""
    )
    here.type("kumactl inspect meshes --watch default")


def test_quickstart_and_demo(here: Place) -> None:
    before = int(here.gets("APP"))
    assert int(here.gets("APP")) > before
    shown = here.type("kumactl get dataplanes")
    assert "kuma.io/service=app" in shown
    assert "kuma.io/service=redis" in shown
    assert "default" in here.type('curl --silent --fail "$API/meshes/default/dataplanes"')
    here.type("kumactl delete meshtrafficpermission allow-all")
    assert here.gets("APP", status=502) == "", "without a permission the application does not reach its store"
    here.type(ALLOW_ALL)
    assert int(here.gets("APP")) > before


def test_dpp_on_universal(here: Place) -> None:
    """A template with variables that comes with its proxy, and a Dataplane that is created first."""
    here.take("BACKEND", "BACKEND_IN", "TO_REDIS", "ADMIN_3", "INDIRECT", "INDIRECT_IN", "ADMIN_4")
    here.workload("echo", here.variables["BACKEND"], "backend")
    here.workload("echo", here.variables["INDIRECT"], "indirect")
    here.type(
        """cat > backend-dp-tmpl.yaml <<EOF
type: Dataplane
mesh: default
name: {{ name }}
networking:
  address: {{ address }}
  admin: {port: $ADMIN_3}
  inbound:
  - port: $BACKEND_IN
    servicePort: $BACKEND
    tags:
      kuma.io/service: backend
      kuma.io/protocol: http
  outbound:
  - port: $TO_REDIS
    tags:
      kuma.io/service: redis
EOF
umask 077
kumactl generate dataplane-token --mesh default --tag kuma.io/service=backend > kuma-dp-backend-1-token
cat > indirect.yaml <<EOF
type: Dataplane
mesh: default
name: my-backend-dp
networking:
  address: 127.0.0.1
  admin: {port: $ADMIN_4}
  inbound:
  - port: $INDIRECT_IN
    servicePort: $INDIRECT
    tags: {kuma.io/service: indirect, kuma.io/protocol: http}
EOF
kumactl apply -f indirect.yaml
kumactl generate dataplane-token --name my-backend-dp > indirect-token"""
    )
    here.terminal(
        """kuma-dp run --cp-address=$CP --dataplane-file=backend-dp-tmpl.yaml --dataplane-var name=backend-1 \
        --dataplane-var address=127.0.0.1 --dataplane-token-file=kuma-dp-backend-1-token --ca-cert-file=ca.crt""",
        says=RUNS,
    )
    here.terminal(
        """kuma-dp run --cp-address=$CP --name=my-backend-dp --mesh=default \
        --dataplane-token-file=indirect-token --ca-cert-file=ca.crt""",
        says=RUNS,
    )
    expected = ["app", "backend-1", "my-backend-dp", "redis"]
    here.shows("kumactl inspect dataplanes", lambda shown: online(shown) == expected)
    delegated_gateway(here)


def online(shown: str) -> list[str]:
    """The names of a table's Dataplanes that have a proxy."""
    return [line.split()[1] for line in shown.splitlines() if "Online" in line]


def delegated_gateway(here: Place) -> None:
    """Kong, or nginx, in front of two services, as in the vagrant demo: settings come from a unit's environment."""
    here.take("TO_APP", "TO_BACKEND", "TO_INDIRECT", "ADMIN_5")
    here.type(
        """cat > kong.yaml <<EOF
type: Dataplane
mesh: default
name: kong
networking:
  address: 127.0.0.1
  admin: {port: $ADMIN_5}
  gateway:
    tags:
      kuma.io/service: kong
  outbound:
  - port: $TO_APP
    tags: {kuma.io/service: app}
  - port: $TO_BACKEND
    tags: {kuma.io/service: backend}
  - port: $TO_INDIRECT
    tags: {kuma.io/service: indirect}
EOF
kumactl apply -f kong.yaml
umask 077
kumactl generate dataplane-token --name=kong > kong-token"""
    )
    here.terminal(
        "kuma-dp run",
        {
            "KUMA_DATAPLANE_MESH": "default",
            "KUMA_DATAPLANE_NAME": "kong",
            "KUMA_CONTROL_PLANE_URL": here.variables["CP"],
            "KUMA_CONTROL_PLANE_CA_CERT": (here.home / "ca.crt").read_text(),
            "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH": str(here.home / "kong-token"),
        },
        says=RUNS,
    )
    assert int(here.gets("TO_APP")) > 0
    assert (here.gets("TO_BACKEND"), here.gets("TO_INDIRECT")) == ("backend", "indirect")
    here.shows("kumactl inspect dataplanes --gateway", lambda shown: "kong" in shown)


def test_ansible_and_docker_compose(here: Place) -> None:
    """The options of kuma-tools' unit, and the variables of its compose file. `none` for authentication is refused."""
    here.take("ECHO", "ECHO_IN", "ADMIN_6")
    here.workload("echo", here.variables["ECHO"], "echo-server")
    here.type(
        """cat > dp.yaml <<EOF
type: Dataplane
mesh: default
name: {{SERVICE_NAME}}
networking:
  address: {{ADDRESS}}
  admin: {port: $ADMIN_6}
  inbound:
  - port: {{OUTSIDE_PORT}}
    servicePort: {{PORT}}
    tags:
      kuma.io/service: {{SERVICE_NAME}}
      kuma.io/protocol: http
EOF
umask 077
kumactl generate dataplane-token --proxy-type dataplane --name echo-server > echo-server.dp"""
    )
    name = here.terminal(
        """kuma-dp run --proxy-type dataplane --cp-address $CP --dataplane-token-file echo-server.dp --log-level=info \
        --ca-cert-file ca.crt --dataplane-file dp.yaml --config-dir kuma-dp/echo-server \
        --dns-server-config-dir kuma-dp/echo-server --dns-coredns-path /usr/bin/coredns \
        --dataplane-var=SERVICE_NAME=echo-server --dataplane-var=PORT=$ECHO --dataplane-var=OUTSIDE_PORT=$ECHO_IN \
        --dataplane-var=ADDRESS=127.0.0.1""",
        says=RUNS,
    )
    assert "--dns-coredns-path has no effect here" in here.said(name)
    here.shows("kumactl inspect services", lambda shown: "echo-server" in shown)
    refused = here.tried("kuma-cp run", KUMA_MODE="standalone", KUMA_DP_SERVER_AUTH_TYPE="none")
    assert (refused.returncode, "KUMA_DP_SERVER_AUTH_TYPE" in refused.stderr) == (1, True), refused.stderr


def test_secrets(here: Place) -> None:
    """Secrets of both scopes, and a provided CA of two of them, under the old name `config`."""
    here.type(
        """echo "type: Mesh
name: secretive" | kumactl apply -f -
echo "type: Secret
mesh: secretive
name: sample-secret
data: dGVzdAo=" | kumactl apply -f -
echo "type: GlobalSecret
name: sample-global-secret
data: dGVzdAo=" | kumactl apply -f -
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=Own -addext keyUsage=critical,keyCertSign,cRLSign \
  -keyout own.key -out own.crt
for part in cert:own.crt key:own.key; do
echo "type: Secret
mesh: secretive
name: my-${part%%:*}
data: $(base64 < ${part##*:} | tr -d '\\n')" | kumactl apply -f -
done
echo "type: Mesh
name: secretive
mtls:
  backends:
    - name: ca-1
      type: provided
      config:
        cert:
          secret: my-cert
        key:
          secret: my-key" | kumactl apply -f -"""
    )
    assert "sample-secret" in here.type("kumactl get secrets -m secretive")
    assert "dGVzdAo=" in here.type("kumactl get secret sample-secret -m secretive -o yaml")
    assert "sample-global-secret" in here.type("kumactl get global-secrets")
    assert here.tried("kumactl delete secret my-key -m secretive").returncode == 1, "it is in use"


def test_dp_membership(here: Place) -> None:
    """Who lacks a required tag, or has one that is restricted, is no member."""
    here.type(
        """echo "type: Mesh
name: members
constraints:
  dataplaneProxy:
    requirements:
      - tags:
          team: '*'
          cloud: '*'
    restrictions:
      - tags:
          legacy: '*'" | kumactl apply -f -"""
    )
    member = """echo "type: Dataplane
mesh: members
name: {name}
networking:
  address: 127.0.0.1
  inbound:
    - port: 8000
      servicePort: 80
      tags: {{kuma.io/service: x, {tags}}}" | kumactl apply -f -"""
    here.type(member.format(name="one", tags="team: a, cloud: b"))
    for name, tags in (("two", "team: a"), ("three", "team: a, cloud: b, legacy: c")):
        refused = here.tried(member.format(name=name, tags=tags))
        assert (refused.returncode, "members" in refused.stderr) == (1, True), refused.stderr
    assert here.type("kumactl get dataplanes -m members -o json").count('"name"') == 1


def test_no_tutorial_has_broken_another(here: Place) -> None:
    assert int(here.gets("APP")) > 0
