"""What is said of a caller is what Envoy decides by the rules that it is given: for any caller and any permissions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kuma.pki import spiffe
from kuma.policy import decision
from kuma.policy.authorization import Admission
from kuma.xds.envoy.listeners import rbac
from tests.fakes import envoy_rules
from tests.xds.envoy.test_gate import NAMES, PRINCIPALS

ADMISSIONS = st.builds(
    lambda principals, denied, shadowed: Admission(
        "p", tuple({*principals, *shadowed}), tuple(denied), tuple(shadowed)
    ),
    st.lists(PRINCIPALS, max_size=3),
    st.lists(PRINCIPALS, max_size=2),
    st.lists(PRINCIPALS, max_size=2),
)


@given(admission=ADMISSIONS, names=st.lists(NAMES, min_size=1, max_size=4))
def test_the_verdict_is_that_of_the_rules(admission: Admission, names: list[str]) -> None:
    verdict = decision.verdict(admission, spiffe.tags("default", names))
    rules, shadow = rbac.access("default", admission), rbac.shadow_access("default", admission)
    admitted = envoy_rules.lets_in(rules, names)
    assert (verdict != "refused") == admitted
    assert (verdict == "wouldBeRefused") == (admitted and shadow is not None and not envoy_rules.lets_in(shadow, names))
