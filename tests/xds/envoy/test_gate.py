"""The gate decides as the rules do: about any caller, by any permissions."""

from __future__ import annotations

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from kuma.policy.authorization import Admission, Principal
from kuma.xds.envoy.listeners import gate, rbac
from tests.fakes import envoy_rules

TAGS = st.sampled_from([
    ("kuma.io/service", "web"), ("kuma.io/service", "web-2"), ("env", "dev"), ("env", "de"), ("my-env", "dev"),
])  # fmt: skip
PRINCIPALS = st.builds(
    lambda tags, lacks: Principal(tuple(sorted(tags)), tuple(sorted(lacks))),
    st.sets(TAGS, max_size=2),
    st.sets(st.sampled_from(["env", "my-env"]), max_size=2),
)
ADMISSIONS = st.builds(
    lambda principals, denied: Admission("p", tuple(principals), tuple(denied)),
    st.lists(PRINCIPALS, min_size=1, max_size=3),
    st.lists(PRINCIPALS, max_size=2),
)
NAMES = st.sampled_from([
    "spiffe://default/web", "spiffe://default/web-2", "spiffe://other/web", "kuma://env/dev", "kuma://env/de",
    "kuma://my-env/dev", "kuma://env/prod",
])  # fmt: skip


@given(
    admissions=st.lists(ADMISSIONS, min_size=1, max_size=2, unique=True), names=st.lists(NAMES, min_size=1, max_size=4)
)
def test_the_gate_and_the_rules_decide_alike(admissions: list[Admission], names: list[str]) -> None:
    """Each of its rules about those who were accepted under it."""
    front = gate.front("gate", listener_components_pb2.Filter())
    entry = gate.listener("gate", front, "default", admissions)
    made = listener_pb2.Listener.FromString(discovery_pb2.Resource.FromString(entry.wire).resource.value)
    for admission in admissions:
        carried = f"{gate.rules_id(admission)},{','.join(names)},"
        through = any(
            envoy_rules.matches(m.predicate, carried) for m in made.filter_chain_matcher.matcher_list.matchers
        )
        assert through == is_allowed(admission, names)


@given(admission=ADMISSIONS, names=st.lists(NAMES, min_size=1, max_size=4))
def test_whoever_is_admitted_gets_through_the_handshake_of_an_envoy_without_gates(
    admission: Admission, names: list[str]
) -> None:
    asked = rbac.names("default", admission)
    shown = any(name == m.exact if m.exact else name.startswith(m.prefix) for name in names for m in asked)
    of_the_mesh = any(name.startswith("spiffe://default/") for name in names)
    assert shown or not (is_allowed(admission, names) and of_the_mesh)


def is_allowed(admission: Admission, names: list[str]) -> bool:
    return envoy_rules.lets_in(rbac.access("default", admission), names)
