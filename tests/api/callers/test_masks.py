"""Inline private keys: in no answer, wherever they stand, unless an administrator asks for them."""

import base64
from pathlib import Path
from typing import Any

import pytest

from kuma.api.http.access_control import Access, LocalAdmins
from kuma.resources import kinds
from kuma.store.manager import ResourceManager
from tests.api.test_api import DATAPLANE, Api, api, application, manager  # noqa: F401
from tests.fakes import cas
from tests.fakes.cas import Ca

READS = ("/meshes/default", "/meshes", "/meshes/default?format=k8s", "/meshes/default?format=kubernetes")
ELSEWHERE = (
    "/mesh-insights", "/mesh-insights/default", "/service-insights", "/meshes/default/dataplanes+insights",
    "/meshes/default/dataplanes+insights/web-01", "/meshes/default/dataplanes/web-01/_overview", "/config",
    "/meshes/default/mesh-transitions", "/meshes/default/dataplanes/web-01/policies", "/_resources",
)  # fmt: skip


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def mesh(cert: dict[str, str], key: dict[str, str], field: str = "conf", name: str = "default") -> dict[str, Any]:
    backend = {"name": "own", "type": "provided", field: {"cert": cert, "key": key}}
    return {"type": "Mesh", "name": name, "mtls": {"enabledBackend": "own", "backends": [backend]}}


FORMS = {
    "key": lambda ca: mesh({"inlineString": ca.cert}, {"inlineString": ca.key}),
    "both in both": lambda ca: mesh({"inlineString": ca.cert + ca.key}, {"inlineString": ca.cert + ca.key}),
    "base64": lambda ca: mesh({"inline": encoded(ca.cert + ca.key)}, {"inline": encoded(ca.cert + ca.key)}),
    "key before the certificate": lambda ca: mesh({"inlineString": ca.key + ca.cert}, {"inlineString": ca.key}),
    "config": lambda ca: mesh({"inlineString": ca.cert + ca.key}, {"inlineString": ca.key}, "config"),
    "damaged key": lambda ca: mesh(
        {"inlineString": ca.cert + ca.key.replace("-----END", "----END")}, {"inlineString": ca.key}
    ),
}


def shows(text: str, ca: Ca) -> bool:
    """Whether an answer has any line of the key, plain or within base64."""
    lines = [line for line in ca.key.splitlines() if line and "--" not in line]
    whole = text + "".join(_decoded(word) for word in text.replace('"', " ").split() if len(word) > 40)
    return any(line in whole for line in lines) or "PRIVATE KEY" in whole


def _decoded(word: str) -> str:
    try:
        return base64.b64decode(word.strip(",")).decode(errors="replace")
    except ValueError:
        return ""


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
async def test_no_answer_shows_an_inline_key(api: Api, tmp_path: Path, form: Any) -> None:  # noqa: F811
    ca = cas.root(tmp_path, "root")
    answer = await api.put(form(ca))
    assert answer.status_code == 200
    assert not shows(answer.text, ca)
    await api.put(DATAPLANE)
    for path in READS:
        found = await api("GET", path)
        assert found.status_code == 200
        assert not shows(found.text, ca), path
        assert "*****" in found.text or encoded("*****") in found.text
        assert "own" in found.text
    for path in ELSEWHERE:
        assert not shows((await api("GET", path)).text, ca), path


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
async def test_applying_what_is_shown_changes_nothing(
    api: Api,  # noqa: F811
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
    form: Any,
) -> None:
    await api.put(form(cas.root(tmp_path, "root")))
    before = await manager.get(kinds.MESH.key("default"))
    shown = (await api("GET", "/meshes/default")).json()
    assert (await api.put(shown)).status_code == 200
    assert (await manager.get(kinds.MESH.key("default"))).spec == before.spec


async def test_a_mask_that_stands_for_nothing_is_refused_as_one(api: Api, tmp_path: Path) -> None:  # noqa: F811
    ca = cas.root(tmp_path, "root")
    both = {"inlineString": ca.cert + ca.key}
    await api.put(mesh(both, both))
    shown = (await api("GET", "/meshes/default")).json()
    other = {**shown, "name": "other"}
    renamed = {**shown, "mtls": {"backends": [{**shown["mtls"]["backends"][0], "name": "renamed"}]}}
    for body in (other, renamed):
        answer = await api.put(body)
        assert answer.status_code == 400
        found = {p["field"]: p["reason"] for p in answer.json()["invalid_parameters"]}
        assert set(found) == {"mtls.backends[0].conf.cert", "mtls.backends[0].conf.key"}
        assert all(reason.startswith("this is the mask, not a key") for reason in found.values())


async def test_administrators_may_ask_for_what_is_masked_and_nobody_else(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
) -> None:
    ca = cas.root(tmp_path, "root")
    admin = application(manager)
    await admin.put(mesh({"inlineString": ca.cert}, {"inlineString": ca.key}))
    reader = application(manager, local_admins=LocalAdmins(), access=Access(anonymous_reads=True))
    for path in ("/meshes/default?reveal=true", "/meshes?reveal=true", "/meshes/default?reveal=true&format=k8s"):
        assert shows((await admin("GET", path)).text, ca)
        refused = await reader("GET", path)
        assert refused.status_code == 403
        assert not shows(refused.text, ca)
        assert (await reader("GET", path.partition("?")[0])).status_code == 200
    revealed = (await admin("GET", "/meshes/default?reveal=true")).json()
    assert (await admin.put({**revealed, "name": "other"})).status_code == 201
