"""Requests that no well-behaved client sends: hosts and paths that make no sense, bootstraps asked for in no JSON."""

import json
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography import x509
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kuma.api.http import access_control
from kuma.api.http.request_limits import RequestLimits
from kuma.api.routes.bootstrap import create_bootstrap_app
from kuma.base import aio
from kuma.base.audit import NoAudit
from kuma.base.clock import SystemClock
from kuma.base.errors import KumaError, NoSigningKey, NotFound
from kuma.base.values.rate_limit import Rate
from kuma.pki import own_ca
from kuma.pki.x509 import certificate_pem
from kuma.store.manager import ResourceManager
from kuma.store.views import Views
from kuma.tokens.signing_keys import Expired, NotValidYet
from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.bootstrap.service import BootstrapService
from kuma.xds.stream.proxy_authentication import Authenticator
from tests.api.inputs.test_fuzz import DOCUMENTS, TEXTS, VALUES
from tests.api.test_api import US, Api, api, manager  # noqa: F401 - fixtures
from tests.fakes.examples import examples
from tests.fakes.patience import PATIENCE

HOSTS = st.sampled_from(["[", "]", "[::1", "[::1]:x", "::1", "x:99999999", "[]", "a b", "//", "@", "%5b", ""]) | (
    st.text("[]:@/%?#.-_ax1\x80\xff \t", max_size=8)
)
fuzzed = examples(300, expected=(HealthCheck.function_scoped_fixture,))


async def raw(
    app: Any, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes = b"", *, half: bool = False
) -> int:
    """The status of the answer; `half`: the client is gone before all of the body has come."""
    messages = iter([{"type": "http.request", "body": body, "more_body": half}])
    statuses: list[int] = []

    async def receive() -> Any:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": list(headers), "client": ("127.0.0.1", 4711), "server": ("127.0.0.1", 5681), "scheme": "http",
        "http_version": "1.1", "root_path": "", "state": {access_control.LOCAL_USER: US},
    }  # fmt: skip
    await app(scope, receive, send)
    return statuses[0]


@fuzzed
@given(HOSTS, st.sampled_from(["/meshes", "/who-am-i", "[", "*", "//[/", "/meshes/["]))
async def test_no_host_gives_a_500(api: Api, host: str, path: str) -> None:  # noqa: F811
    for more in ([], [(b"origin", host.encode("latin-1"))]):
        headers = [(b"host", host.encode("latin-1")), *more]
        assert await raw(api.app, "GET", path, headers) in (200, 400, 403, 404)


@pytest.fixture
async def bootstraps(manager: ResourceManager) -> AsyncIterator[Any]:  # noqa: F811
    async def port() -> int:
        return 5677

    async def withdraw(mesh: str, name: str, token: str, host: str, proof: str) -> None:
        raise NotFound("nobody is here")

    clock, views = SystemClock(), Views(manager.store)
    ca = own_ca.new_ca(x509.Name([]), clock.now(), timedelta(days=1)).certificate
    names = ServerNames(("localhost",), certificate_pem(ca))
    bootstrap_service = BootstrapService(manager, views, Authenticator(manager, views, clock), port, lambda: names)
    following = aio.spawn(views.run(), name="views")
    yield create_bootstrap_app(bootstrap_service.answer, withdraw, RequestLimits(Rate(1e6, 10**6)), clock, NoAudit())
    await aio.stop([following])


@fuzzed
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "mesh": VALUES | st.just("default"),
            "name": VALUES | st.just("web-01"),
            "dataplaneToken": TEXTS | st.just("token"),
            "dataplaneResource": TEXTS | DOCUMENTS.map(json.dumps),
            "version": VALUES,
            "caCert": TEXTS,
        },
    ),
    HOSTS | st.just("localhost:5678"),
)
async def test_no_request_for_a_bootstrap_gives_a_500(bootstraps: Any, body: dict[str, Any], host: str) -> None:
    headers = [(b"host", host.encode("latin-1"))]
    assert await raw(bootstraps, "POST", "/bootstrap", headers, json.dumps(body).encode()) in (200, 400, 404, 422)


BEGIN = b'{"mesh": "default", "name": "x", "dataplaneToken": "t", '


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (BEGIN + b'"version": {"x": NaN}}', 400),
        (BEGIN + b'"version": ' + b'{"x": ' * 5000 + b"1" + b"}" * 5001, 400),
        (BEGIN + b'"caCert": "\\ud800"}', 400),
        (BEGIN + b'"dataplaneResource": "' + b"[" * 90_000 + b'"}', 422),
        (BEGIN + b'"features": [' + b"0," * 90_000 + b"0]}", 400),
        (BEGIN + b'"features": [' + b"0," * 400_000 + b"0]}", 400),
    ],
    ids=["NaN", "deep", "surrogate", "deep resource", "wrong", "many"],
)
async def test_bootstrap_requests_that_are_no_json_of_ours(bootstraps: Any, body: bytes, status: int) -> None:
    transport = httpx.ASGITransport(bootstraps)
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost", timeout=PATIENCE) as client:
        answer = await client.post("/bootstrap", content=body)
        assert (answer.status_code, len(answer.text) < 1000) == (status, True)


async def test_a_client_that_goes_away_in_the_middle_of_a_body_is_no_fault_of_ours(
    api: Api,  # noqa: F811
    bootstraps: Any,
) -> None:
    """Anybody may do so, many times a second: it is not worth a traceback in the log."""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    with capture_logs() as logs:
        for app, method, path in (
            (api.app, "PUT", "/meshes/default"),
            (bootstraps, "POST", "/bootstrap"),
            (bootstraps, "POST", "/withdraw"),
        ):
            assert await raw(app, method, path, headers, b'{"a', half=True) == 408
    assert not logs


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(Expired("has ended", {}), 401), (NotValidYet("in a minute"), 401), (NoSigningKey("there is none"), 404)],
    ids=lambda value: type(value).__name__,
)
async def test_a_proxy_that_ends_after_its_token_is_told_so(refusal: KumaError, status: int) -> None:
    async def answer(_: Any) -> Any:
        raise NotFound

    async def withdraw(*_: str) -> None:
        raise refusal

    app = create_bootstrap_app(answer, withdraw, RequestLimits(), SystemClock(), NoAudit())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://localhost") as client:
        found = await client.post("/withdraw", json={"mesh": "default", "name": "x", "dataplaneToken": "t"})
    assert (found.status_code, found.text) == (status, str(refusal))
