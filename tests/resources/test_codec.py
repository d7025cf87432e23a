"""Both written forms say the same thing, and reading gives back what was meant."""

from __future__ import annotations

import pytest

from kuma.base.errors import InvalidResource
from kuma.resources import codec

UNIVERSAL = """
type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends:
  - name: ca-1
    type: builtin
    dpCert: {rotation: {expiration: 1d}}
    conf: {caCert: {RSAbits: 2048, expiration: 10y}}
"""
KUBERNETES = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: default}
spec:
  mtls:
    enabledBackend: ca-1
    backends:
    - name: ca-1
      type: builtin
      dpCert: {rotation: {expiration: 1d}}
      conf: {caCert: {RSAbits: 2048, expiration: 10y}}
"""


def test_both_forms_are_the_same_resource() -> None:
    universal, kubernetes = (codec.parse(next(codec.documents(text))) for text in (UNIVERSAL, KUBERNETES))
    assert universal == kubernetes
    assert codec.parse(codec.to_kubernetes(universal)) == universal
    assert codec.parse(codec.to_universal(universal)) == universal


def test_defaults_are_omitted_on_output() -> None:
    text = "type: Mesh\nname: m\nmtls:\n  backends:\n  - {name: a, type: builtin, mode: STRICT}"
    written = codec.to_universal(codec.parse(next(codec.documents(text))))
    assert written["mtls"] == {"backends": [{"name": "a", "type": "builtin"}]}


def test_secrets_in_the_kubernetes_form() -> None:
    document = {
        "apiVersion": "v1", "kind": "Secret", "type": "system.kuma.io/secret",
        "metadata": {"name": "s", "namespace": "kuma-system", "labels": {"kuma.io/mesh": "prod"}},
        "data": {"value": "aGVsbG8="},
    }  # fmt: skip
    secret = codec.parse(document)
    assert (secret.mesh, secret.name, secret.spec.data) == ("prod", "s", b"hello")
    assert codec.to_kubernetes(secret) == document


def test_a_secret_is_never_printed() -> None:
    secret = codec.parse({"type": "Secret", "name": "s", "data": "aGVsbG8="})
    assert "hello" not in repr(secret)
    assert "aGVsbG8" not in repr(secret)


def test_global_kinds_have_no_mesh() -> None:
    with pytest.raises(InvalidResource, match="belongs to no mesh"):
        codec.parse({"type": "GlobalSecret", "name": "s", "mesh": "default"})


def _repeated(tag: str, item: str) -> str:
    """A text of a few hundred bytes whose aliases stand for some 400 million values."""
    lines = [
        f"{'abcdefghi'[i]}: &{i} {tag}[{', '.join([item.format(f'*{i - 1}' if i else 'x')] * 9)}]" for i in range(9)
    ]
    return "type: Mesh\nname: default\n" + "\n".join(lines)


def _merged() -> str:
    """Maps that bring in each other, nine times each."""
    lines = [f"a{i}: &{i} {{<<: [{', '.join([f'*{i - 1}'] * 9)}]}}" for i in range(1, 9)]
    return "\n".join(["type: Mesh", "a0: &0 {x: 1}", *lines])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(_merged(), "<<: brings in more than 100000 values", id="maps that bring in each other"),
        pytest.param("a: &0 {<<: *0}", "nested too deeply", id="a map that brings itself in"),
        pytest.param("a: {<<: [b]}", "<<: brings in maps only; what it names at line 1 is none", id="no map"),
        pytest.param("a: &0 {x: 1}\nb: {<<: *0, <<: *0}", "<<: is written twice", id="twice"),
        pytest.param(_repeated("", "{}"), "more than 100000 values", id="aliases in lists"),
        pytest.param(_repeated("!!pairs ", "x: {}"), "more than 100000 values", id="aliases in pairs"),
        pytest.param("a: " + "[" * 100_000, "nested too deeply", id="endless lists"),
        pytest.param("a: " + "{b: " * 70 + "c" + "}" * 70, "nested too deeply", id="maps that end"),
        pytest.param("a: 1:" + "1:" * 200 + "1.5", "there cannot be", id="sexagesimal"),
        *(
            (f"a: {value}", "there cannot be")
            for value in ("!!bool x", "!!int ''", "!!float ''", "!!timestamp x", r'"\U00110000"', r'"\UFFFFFFFF"')
        ),
    ],
)
def test_no_text_is_more_than_an_error(text: str, reason: str) -> None:
    with pytest.raises(InvalidResource, match=reason):
        list(codec.documents(text))


def test_an_alias_says_a_few_things_again() -> None:
    text = "type: Mesh\nname: default\nlabels: &1 {team: a}\nother: *1"
    assert list(codec.documents(text)) == [
        {"type": "Mesh", "name": "default", "labels": {"team": "a"}, "other": {"team": "a"}}
    ]


def test_a_map_may_bring_others_in() -> None:
    """As the original takes it, too; what stands in the map itself is stronger, and of several the first."""
    text = """
    type: Dataplane
    tags: &web {kuma.io/service: web, version: v1}
    more: &more {<<: *web, team: a}
    one: {version: v2, <<: *more}
    two: {<<: [{team: b, x: y}, *more]}
    """
    (found,) = codec.documents(text)
    web = {"kuma.io/service": "web", "version": "v1"}
    assert (found["tags"], found["more"]) == (web, {**web, "team": "a"})
    assert (found["one"], found["two"]) == ({**web, "version": "v2", "team": "a"}, {**web, "team": "b", "x": "y"})
