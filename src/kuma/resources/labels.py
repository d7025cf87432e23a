"""Labels, with the syntax of Kubernetes: a key may have a DNS subdomain as its prefix, a value may be empty."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kuma.base.errors import Violation

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_LONGEST_PREFIX = 253
_RULE = (
    "at most 63 characters: letters, digits, '-', '_' and '.', and a letter or digit at the beginning and at the end"
)
REGISTERED = "kuma.io/registered-by"
"""Label of a Dataplane that its proxy has brought along: it is removed when the proxy leaves."""
MOST = 100
"""Labels of one resource."""


def validate(path: str, labels: Mapping[str, str]) -> Iterator[Violation]:
    """Checks keys and values."""
    if len(labels) > MOST:
        yield Violation(path, f"more than {MOST} labels")
        return
    for key, value in labels.items():
        field = f'{path}["{key[:300].encode("ascii", "backslashreplace").decode()}"]'
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name):
            yield Violation(field, f"the name part of a label key has {_RULE}")
        if slash and not (len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix)):
            yield Violation(field, f"the prefix of a label key is a DNS name of at most {_LONGEST_PREFIX} characters")
        if value and not _NAME.fullmatch(value):
            yield Violation(field, f"a label value is empty, or has {_RULE}")
