"""TLS contexts, secrets and access rules: what makes a connection mutual TLS and lets a caller in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import any_pb2, message

from kuma.policy.authorization import Admission, Principal
from kuma.resources import tags as tag_rules
from kuma.xds.envoy import resource_names

ALPN = "kuma"
"""The protocol that a client offers; tells mesh TLS from a workload's own TLS."""

ADS = config_source_pb2.ConfigSource(
    ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.V3
)
_TLS = "envoy.transport_sockets.tls"
_PARAMETERS = common_pb2.TlsParameters(tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2)


def packed(content: message.Message) -> any_pb2.Any:
    """`content` as an `Any`, with one serialisation for equal contents."""
    wrapped = any_pb2.Any()
    wrapped.Pack(content, deterministic=True)
    return wrapped


def spiffe_id(mesh: str, service: str) -> str:
    """The identity of a service. Kept here as text: whether it is valid was settled when the Dataplane was applied."""
    return f"spiffe://{mesh}/{service}"


def tag_uri(name: str, value: str) -> str:
    """The URI by which a leaf carries a tag that permissions select callers by."""
    return f"kuma://{name}/{value}"


def downstream(mesh: str) -> base_pb2.TransportSocket:
    """The server's side: a client certificate of this mesh is required."""
    return requiring(_common(mesh, string_pb2.StringMatcher(prefix=f"spiffe://{mesh}/")))


def requiring(common: tls_pb2.CommonTlsContext) -> base_pb2.TransportSocket:
    """A server that requires a client certificate.

    Session resumption is off, because a resumed session is not verified against the bundle of today.
    """
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context=common,
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )
    context.require_client_certificate.value = True
    return base_pb2.TransportSocket(name=_TLS, typed_config=packed(context))


def upstream(mesh: str, tags: Mapping[str, str]) -> base_pb2.TransportSocket:
    """The client's side: the server has to be exactly the service that is called."""
    expected = string_pb2.StringMatcher(exact=spiffe_id(mesh, tags[tag_rules.SERVICE]))
    name = tag_rules.server_name(mesh, tags)
    context = tls_pb2.UpstreamTlsContext(common_tls_context=_common(mesh, expected), sni=name)
    context.common_tls_context.alpn_protocols.append(ALPN)
    context.max_session_keys.value = 0
    return base_pb2.TransportSocket(name=_TLS, typed_config=packed(context))


def _common(mesh: str, peer: string_pb2.StringMatcher) -> tls_pb2.CommonTlsContext:
    matcher = common_pb2.SubjectAltNameMatcher(san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=peer)
    return verified(resource_names.identity_secret(mesh), resource_names.trust_bundle_secret(mesh), matcher)


def verified(own: str, trusted: str, peer: common_pb2.SubjectAltNameMatcher) -> tls_pb2.CommonTlsContext:
    """Own identity and trust bundle by reference, so that each is replaced alone; the peer's name is always checked."""
    context = tls_pb2.CommonTlsContext(tls_params=_PARAMETERS)
    context.tls_certificate_sds_secret_configs.add(name=own, sds_config=ADS)
    combined = context.combined_validation_context
    combined.default_validation_context.match_typed_subject_alt_names.append(peer)
    combined.validation_context_sds_secret_config.name = trusted
    combined.validation_context_sds_secret_config.sds_config.CopyFrom(ADS)
    return context


def identity(mesh: str, chain_pem: bytes, key_pem: bytes) -> secret_pb2.Secret:
    """The certificate of a proxy of this mesh, and its key."""
    return certificate(resource_names.identity_secret(mesh), chain_pem, key_pem)


def certificate(name: str, chain_pem: bytes, key_pem: bytes) -> secret_pb2.Secret:
    """A certificate chain, leaf first, and its key: one secret, so that they never mismatch."""
    return secret_pb2.Secret(
        name=name,
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=chain_pem),
            private_key=base_pb2.DataSource(inline_bytes=key_pem),
        ),
    )


def trust_bundle(mesh: str, roots_pem: bytes) -> secret_pb2.Secret:
    """The roots that a proxy of this mesh trusts."""
    return trusted(resource_names.trust_bundle_secret(mesh), roots_pem)


def trusted(name: str, roots_pem: bytes) -> secret_pb2.Secret:
    """Roots that peers are verified by."""
    return secret_pb2.Secret(
        name=name,
        validation_context=common_pb2.CertificateValidationContext(
            trusted_ca=base_pb2.DataSource(inline_bytes=roots_pem)
        ),
    )


def access(mesh: str, admission: Admission) -> rbac_pb2.RBAC:
    """The callers that may pass. Without principals nobody passes: ALLOW with no policy denies."""
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW)
    if admission.principals:
        policy = rules.policies[admission.permission]
        policy.permissions.add(any=True)
        allowed = list(_principals(mesh, admission.principals))
        if admission.denied:
            refused = rbac_pb2.Principal(not_id=_any_of(list(_principals(mesh, admission.denied))))
            allowed = [rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=[_any_of(allowed), refused]))]
        policy.principals.extend(allowed)
    return rules


def shadow_access(mesh: str, admission: Admission) -> rbac_pb2.RBAC | None:
    """What would be refused if shadow denials were real: counted by Envoy as `shadow_denied`, and let through."""
    if not admission.shadowed:
        return None
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.DENY)
    policy = rules.policies[admission.permission]
    policy.permissions.add(any=True)
    policy.principals.extend(_principals(mesh, admission.shadowed))
    return rules


def _any_of(principals: Sequence[rbac_pb2.Principal]) -> rbac_pb2.Principal:
    if len(principals) == 1:
        return principals[0]
    return rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=principals))


def _principals(mesh: str, principals: Iterable[Principal]) -> Iterable[rbac_pb2.Principal]:
    for principal in principals:
        conditions = [_carries(mesh, name, value) for name, value in principal.tags]
        if not conditions:
            # Any caller with an identity of this mesh; never simply "any", which a plaintext peer would match.
            conditions = [_authenticated(string_pb2.StringMatcher(prefix=f"spiffe://{mesh}/"))]
        if len(conditions) == 1:
            yield conditions[0]
        else:
            yield rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=conditions))


def _carries(mesh: str, name: str, value: str) -> rbac_pb2.Principal:
    uri = spiffe_id(mesh, value) if name == tag_rules.SERVICE else tag_uri(name, value)
    return _authenticated(string_pb2.StringMatcher(exact=uri))


def _authenticated(matcher: string_pb2.StringMatcher) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(authenticated=rbac_pb2.Principal.Authenticated(principal_name=matcher))
