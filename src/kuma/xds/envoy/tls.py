"""TLS contexts and secrets: what makes a connection mutual TLS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import any_pb2, message

from kuma.pki import spiffe
from kuma.resources import tags as tag_rules
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.resource import Entry, field_of, head_of, type_url_of

ALPN = "kuma"
"""The protocol that a client offers; tells mesh TLS from a workload's own TLS."""
GROUP_ALPN = "kuma.io/group-alpn"
"""The key of the node's metadata under which a proxy has the ALPN of its group of callers."""

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


def group_alpn(group: str) -> str:
    """Returns the protocol that a client of a group of callers offers before the mesh's."""
    return f"{ALPN}-{group}"


def downstream(mesh: str, names: Sequence[string_pb2.StringMatcher]) -> base_pb2.TransportSocket:
    """Returns the server's side: a client certificate of this mesh is required that has one of these names."""
    return requiring(_common(mesh, *names))


def requiring(common: tls_pb2.CommonTlsContext) -> base_pb2.TransportSocket:
    """Returns a server that requires a client certificate.

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
    """Returns the client's side: the server has to be exactly the service that is called."""
    expected = string_pb2.StringMatcher(exact=spiffe.service_id(mesh, tags[tag_rules.SERVICE]))
    name = tag_rules.server_name(mesh, tags)
    context = tls_pb2.UpstreamTlsContext(common_tls_context=_common(mesh, expected), sni=name)
    context.common_tls_context.alpn_protocols.append(ALPN)
    context.max_session_keys.value = 0
    return base_pb2.TransportSocket(name=_TLS, typed_config=packed(context))


def _common(mesh: str, *names: string_pb2.StringMatcher) -> tls_pb2.CommonTlsContext:
    uri = common_pb2.SubjectAltNameMatcher.URI
    peers = [common_pb2.SubjectAltNameMatcher(san_type=uri, matcher=name) for name in names]
    return verified(resource_names.identity_secret(mesh), resource_names.trust_bundle_secret(mesh), *peers)


def verified(own: str, trusted: str, *peers: common_pb2.SubjectAltNameMatcher) -> tls_pb2.CommonTlsContext:
    """Own identity and trust bundle by reference, so that each is replaced alone; the peer has to be one of `peers`.

    Raises:
        ValueError: there are none: Envoy would take that for no check at all.
    """
    if not peers:
        raise ValueError("a peer is always asked for its name")
    context = tls_pb2.CommonTlsContext(tls_params=_PARAMETERS)
    context.tls_certificate_sds_secret_configs.add(name=own, sds_config=ADS)
    combined = context.combined_validation_context
    combined.default_validation_context.match_typed_subject_alt_names.extend(peers)
    combined.validation_context_sds_secret_config.name = trusted
    combined.validation_context_sds_secret_config.sds_config.CopyFrom(ADS)
    return context


def identity(mesh: str, chain_pem: bytes, key_pem: bytes) -> Entry:
    """Returns the certificate of a proxy of this mesh, and its key, as they travel: the very objects that are given.

    So that a key is in memory once. See `certificate`.
    """
    name = resource_names.identity_secret(mesh)
    chain, key = (head_of(_INLINE, len(pem)) for pem in (chain_pem, key_pem))
    chain = head_of(_CHAIN, len(chain) + len(chain_pem)) + chain
    key = head_of(_KEY, len(key) + len(key_pem)) + key
    front = field_of(_NAME, name.encode()) + head_of(_PAIR, sum(map(len, (chain, chain_pem, key, key_pem)))) + chain
    return Entry.serialised(name, type_url_of(secret_pb2.Secret()), front, chain_pem, key, key_pem)


_NAME = secret_pb2.Secret.NAME_FIELD_NUMBER
_PAIR = secret_pb2.Secret.TLS_CERTIFICATE_FIELD_NUMBER
_CHAIN = common_pb2.TlsCertificate.CERTIFICATE_CHAIN_FIELD_NUMBER
_KEY = common_pb2.TlsCertificate.PRIVATE_KEY_FIELD_NUMBER
_INLINE = base_pb2.DataSource.INLINE_BYTES_FIELD_NUMBER


def certificate(name: str, chain_pem: bytes, key_pem: bytes) -> secret_pb2.Secret:
    """Returns a certificate chain, leaf first, and its key: one secret, so that they never mismatch."""
    return secret_pb2.Secret(
        name=name,
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=chain_pem),
            private_key=base_pb2.DataSource(inline_bytes=key_pem),
        ),
    )


def trust_bundle(mesh: str, roots_pem: bytes) -> secret_pb2.Secret:
    """Returns the roots that a proxy of this mesh trusts."""
    return trusted(resource_names.trust_bundle_secret(mesh), roots_pem)


def trusted(name: str, roots_pem: bytes) -> secret_pb2.Secret:
    """Roots that peers are verified by."""
    return secret_pb2.Secret(
        name=name,
        validation_context=common_pb2.CertificateValidationContext(
            trusted_ca=base_pb2.DataSource(inline_bytes=roots_pem)
        ),
    )
