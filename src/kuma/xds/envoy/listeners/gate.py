"""The gate between an inbound and its workload: who calls is decided before a connection is made.

Envoy's RBAC filter decides when a caller's first byte comes, which is too late where the server speaks first. A gate is
an internal listener that the inbound's TCP proxy connects to once the caller's certificate is verified; the names in it
come along as filter state, by which the gate finds the one chain that leads on to the workload. A caller that is not
admitted matches none, and is disconnected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from google.protobuf import wrappers_pb2
from xds.type.matcher.v3 import matcher_pb2
from xds.type.v3 import typed_struct_pb2

from kuma.pki import spiffe
from kuma.policy.authorization import Admission, Principal
from kuma.xds.envoy import tls
from kuma.xds.envoy.listeners import rbac
from kuma.xds.envoy.resource import Entry, serialised, type_url_of

_NAMES = "io.kuma.peer"
"""The key of the filter state: the rules, and the URIs of the caller's certificate, a comma before and after each."""
_ADMITTED = "admitted"
Predicate: TypeAlias = matcher_pb2.Matcher.MatcherList.Predicate


def peer_names(admission: Admission) -> listener_components_pb2.Filter:
    """Keeps the names of a caller whose handshake is complete, and by which rules it was accepted, for the gate."""
    kept = typed_struct_pb2.TypedStruct(  # the field is newer than the messages that we build with
        type_url="type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config"
    )
    text = {"text_format_source": {"inline_string": f"{rules_id(admission)},%DOWNSTREAM_PEER_URI_SAN%,"}}
    value = {
        "object_key": _NAMES,
        "factory_key": "envoy.string",
        "format_string": text,
        "read_only": True,
        "shared_with_upstream": "ONCE",
    }
    kept.value.update({"on_downstream_tls_handshake": [value]})
    return listener_components_pb2.Filter(name="envoy.filters.network.set_filter_state", typed_config=tls.packed(kept))


def front(name: str, onward: listener_components_pb2.Filter) -> bytes:
    """Makes what a gate has whoever is let through: the one chain, which leads `onward`."""
    made = listener_pb2.Listener(name=name)
    made.filter_chains.add(name=_ADMITTED, filters=[onward])
    return serialised(made)


def listener(name: str, front: bytes, mesh: str, admissions: Sequence[Admission]) -> Entry:
    """Makes a gate that lets those through whom an inbound admits, which has to be somebody.

    The first of `admissions` holds now, the others did before: they decide about those who were accepted under them, as
    RBAC does. Otherwise a caller would fail that is admitted before a change and after it, but is under way with a
    certificate from before.
    """
    return Entry.serialised(name, _LISTENER, front + _matching(mesh, tuple(admissions)))


_LISTENER = type_url_of(listener_pb2.Listener())


@lru_cache(maxsize=300)
def _matching(mesh: str, admissions: Sequence[Admission]) -> bytes:
    """Makes what finds the chain: the same for all inbounds of a service."""
    made = listener_pb2.Listener(internal_listener=listener_pb2.Listener.InternalListenerConfig())
    for admission in admissions:
        matcher = made.filter_chain_matcher.matcher_list.matchers.add(predicate=_admits(mesh, admission))
        matcher.on_match.action.name = _ADMITTED
        matcher.on_match.action.typed_config.Pack(wrappers_pb2.StringValue(value=_ADMITTED))
    return serialised(made)


def rules_id(admission: Admission) -> str:
    """Stands for the rules of an inbound at a time."""
    return hashlib.blake2b(repr(admission).encode(), digest_size=8).hexdigest()


def _admits(mesh: str, admission: Admission) -> Predicate:
    """Tells whether a caller is one of the principals, and none of those that are denied."""
    conditions = [_is_like("prefix", f"{rules_id(admission)},")]
    conditions.append(_any_of([_is(mesh, principal) for principal in admission.principals]))
    if admission.denied:
        refused = _any_of([_is(mesh, principal) for principal in admission.denied])
        conditions.append(Predicate(not_matcher=refused))
    return _all_of(conditions)


def _is(mesh: str, principal: Principal) -> Predicate:
    conditions = [_carries(f",{rbac.uri(mesh, name, value)},") for name, value in principal.tags]
    if not conditions:
        conditions = [_carries(f",{spiffe.prefix(mesh)}")]
    if principal.lacks:
        shown = [_carries(f",{spiffe.tag_uri(name, '')}") for name in principal.lacks]
        conditions.append(Predicate(not_matcher=_all_of(shown)))
    return _all_of(conditions)


def _any_of(predicates: Sequence[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]
    return Predicate(or_matcher=Predicate.PredicateList(predicate=predicates))


def _all_of(predicates: Sequence[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]
    return Predicate(and_matcher=Predicate.PredicateList(predicate=predicates))


def _carries(text: str) -> Predicate:
    return _is_like("contains", text)


def _is_like(how: str, text: str) -> Predicate:
    found = Predicate()
    setattr(found.single_predicate.value_match, how, text)
    found.single_predicate.input.name = _NAMES
    found.single_predicate.input.typed_config.CopyFrom(tls.packed(network_inputs_pb2.FilterStateInput(key=_NAMES)))
    return found
