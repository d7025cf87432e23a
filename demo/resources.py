"""The resources of the demo, as a user would write them into files."""

from __future__ import annotations

MESH_WITH_MTLS = """\
type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends:
    - name: ca-1
      type: builtin
"""

MESH_WITH_SHORT_LEAVES = """\
type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends:
    - name: ca-1
      type: builtin
      dpCert:
        rotation:
          expiration: {lifetime}s
"""

MESH_WITH_ANOTHER_CA = """\
type: Mesh
name: default
mtls:
  enabledBackend: ca-2
  backends:
    - name: ca-2
      type: builtin
"""

ALLOW_ALL = """\
type: TrafficPermission
mesh: default
name: allow-all
sources:
  - match:
      kuma.io/service: '*'
destinations:
  - match:
      kuma.io/service: '*'
"""

BACKEND = """\
type: Dataplane
mesh: default
name: backend-01
networking:
  address: 127.0.0.1
  admin:
    port: {admin}
  inbound:
    - port: {inbound}
      servicePort: {workload}
      tags:
        kuma.io/service: backend
        kuma.io/protocol: http
    - port: {inbound_tcp}
      servicePort: {workload}
      tags:
        kuma.io/service: backend-tcp
        kuma.io/protocol: tcp
"""

WEB = """\
type: Dataplane
mesh: default
name: web-01
networking:
  address: 127.0.0.1
  admin:
    port: {admin}
  inbound:
    - port: {inbound}
      servicePort: {workload}
      tags:
        kuma.io/service: web
        kuma.io/protocol: http
  outbound:
    - port: {outbound}
      tags:
        kuma.io/service: backend
    - port: {outbound_tcp}
      tags:
        kuma.io/service: backend-tcp
"""
