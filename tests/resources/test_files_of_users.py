"""Files as users have them: each begins with what stopped one of its kind, and is given back as it was written."""

from __future__ import annotations

import pytest

from kuma.resources import codec

FILES: dict[str, str] = {
    "an inbound with a name, in front of a transparent proxy": """
        type: Dataplane
        mesh: default
        name: store-1
        labels: {app: store, kuma.io/workload: store}
        networking:
          address: 10.2.0.3
          inbound:
          - {name: main, port: 5050, serviceAddress: 127.0.0.1, servicePort: 5051, tags: {kuma.io/service: store}}
          transparentProxying: {redirectPortInbound: 15006, redirectPortOutbound: 15001, reachableServices: [shop]}
        """,
    "containers that know each other by name": """
        type: Dataplane
        mesh: default
        name: shop-1
        networking:
          address: shop_app.internal
          advertisedAddress: shop.example
          inbound: [{port: 80, serviceAddress: shop-web, servicePort: 8080, tags: {kuma.io/service: shop}}]
          outbound: [{port: 9001, tags: {kuma.io/service: store, kuma.io/zone: default}}]
        """,
    "a gateway in front of the mesh, of a type that is not said": """
        type: Dataplane
        mesh: default
        name: entry-1
        networking:
          address: entry.internal
          gateway: {tags: {kuma.io/service: entry}}
          outbound: [{port: 9001, tags: {kuma.io/service: shop}}]
        """,
    "a service of which a control plane has written the status": """
        type: MeshService
        mesh: default
        name: store
        labels: {kuma.io/origin: zone}
        spec: {selector: {dataplaneTags: {app: store}}, ports: [{port: 80, targetPort: 8080, appProtocol: tcp}]}
        status: {vips: [{ip: 240.0.0.1}]}
        """,
    "a permission without a target": """
        type: MeshTrafficPermission
        mesh: default
        name: by-zone
        spec:
          from:
          - {targetRef: {kind: MeshSubset, tags: {kuma.io/zone: east}}, default: {action: AllowWithShadowDeny}}
        """,
    "a permission for gateways": """
        type: MeshTrafficPermission
        mesh: default
        name: gateways
        spec:
          targetRef: {kind: Mesh, proxyTypes: [Gateway]}
          from: [{targetRef: {kind: Mesh}, default: {action: Allow}}]
        """,
    "a permission by identities of another mesh": """
        type: MeshTrafficPermission
        mesh: default
        name: identities
        spec:
          targetRef: {kind: Dataplane, labels: {app: store}}
          rules:
          - default:
              deny: [{spiffeID: {type: Exact, value: spiffe://shop.west.mesh.local/ns/shop/sa/old}}]
              allow: [{spiffeID: {type: Prefix, value: spiffe://shop.west.mesh.local}}]
        """,
    "a Mesh with everything": """
        type: Mesh
        name: default
        skipCreatingInitialPolicies: ['*']
        meshServices: {mode: Exclusive}
        mtls:
          enabledBackend: ca
          backends: [{name: ca, type: builtin, dpCert: {rotation: {expiration: 1d}}}]
        tracing: {defaultBackend: t, backends: [{name: t, type: zipkin, conf: {url: 'http://trace.example:9411/'}}]}
        routing: {localityAwareLoadBalancing: true, zoneEgress: true}
        networking: {outbound: {passthrough: true}}
        constraints: {dataplaneProxy: {requirements: [{tags: {kuma.io/zone: default}}]}}
        """,
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_it_is_taken_and_given_back(text: str) -> None:
    (document,) = codec.documents(text)
    found = codec.parse(document)
    meant = {name: value for name, value in document.items() if name != "status"}
    assert {name: codec.to_universal(found)[name] for name in meant} == meant
