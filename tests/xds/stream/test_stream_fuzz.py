"""Whatever a proxy sends, it gets an answer or the end of its stream, never an internal error; others go on."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2
from hypothesis import HealthCheck, given, note
from hypothesis import strategies as st

from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.examples import examples
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import EOF, METHOD

WEB, DB = dataplane("web-01", "web"), dataplane("db-01", "db")
ENDS = {
    grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED, grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
}  # fmt: skip
NODES = st.sampled_from(
    ["default.web-01", "default.db-01", "other.web-01", "default.", ".x", "x", "", "default.web-01.y"]
)
NAMES = st.lists(
    st.sampled_from(
        ["*", "db", "web", "identity_cert:secret:default", "identity_cert:secret:other", "mesh_ca:secret:default",
         "inbound:10.0.0.1:80", "", "x" * 300]
    ) | st.text(max_size=5),
    max_size=4,
)  # fmt: skip
TYPES = st.sampled_from([*(t.value for t in TypeUrl), "", "type.googleapis.com/google.protobuf.Empty", "x"])


NUMBERS = st.floats() | st.sampled_from([float("nan"), float("inf"), 9901.0])
TEXTS = st.text(max_size=5) | st.sampled_from(
    ["[" * 100_000, "NaN", '{"type": "Dataplane", "x": NaN}', "9901", "1e999"]
)
METADATA = st.dictionaries(
    st.sampled_from(["dataplane.resource", "version", "kumaDp", "envoy", "dataplane.admin.port", "x"]),
    st.recursive(
        NUMBERS | TEXTS | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
        max_leaves=5,
    ),
    max_size=4,
)


@st.composite
def requests(draw: Any) -> Any:
    request = discovery_pb2.DeltaDiscoveryRequest(
        type_url=draw(TYPES),
        resource_names_subscribe=draw(NAMES),
        resource_names_unsubscribe=draw(NAMES),
        initial_resource_versions=dict.fromkeys(draw(NAMES), "1"),
        response_nonce=draw(st.sampled_from(["", "", "1", "2", "99", "x"])),
    )
    if draw(st.booleans()):
        request.node.CopyFrom(base_pb2.Node(id=draw(NODES)))
        request.node.metadata.update(draw(METADATA))
    if draw(st.integers(0, 3)) == 0:
        request.error_detail.CopyFrom(status_pb2.Status(code=13, message=draw(st.text(max_size=10))))
    return request


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    limits = {"stream_burst": 10**6, "request_burst": 10**6}
    async with running(tmp_path, xds_server={"port": 0, **limits}) as found:
        await found.apply(MTLS, ALLOW_ALL)
        for described in (WEB, DB):
            await found.parts.manager.put(described)
        yield found


async def said(cp: Running, frames: list[bytes], token: str) -> tuple[grpc.StatusCode, bytes]:
    """How a stream with these requests ends, and all that was answered."""
    open_stream: Any = (await cp.channel()).stream_stream
    call = open_stream(METHOD)(metadata=(("authorization", token),))
    answers = b""
    try:
        async with asyncio.timeout(PATIENCE):
            try:
                for frame in frames:
                    await call.write(frame)
                await call.done_writing()
                while (answer := await call.read()) is not EOF:
                    answers += answer
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                pass  # the code says why
            code: grpc.StatusCode = await call.code()
            details = await call.details()
            if details == "Internal error from Core":  # the client's own words for writing to a stream that has ended
                return grpc.StatusCode.OK, answers
            assert details != "internal error", "what our server says when it did not expect something"
            return code, answers
    finally:
        call.cancel()


common = examples(150, expected=(HealthCheck.function_scoped_fixture,))


@common
@given(st.lists(requests(), max_size=6), st.booleans())
async def test_any_requests_are_answered_or_end_their_stream(cp: Running, found: list[Any], begins_well: bool) -> None:
    if begins_well and found:
        found[0].node.CopyFrom(base_pb2.Node(id="default.web-01"))
    note("\n".join(map(repr, found)))
    code, answers = await said(cp, [request.SerializeToString() for request in found], cp.token("web-01"))
    assert code in ENDS
    assert answers.count(b"PRIVATE KEY") % 2 == 0
    given = discovery_pb2.DeltaDiscoveryResponse.FromString(
        answers
    ).resources  # of all answers: put together, they merge
    assert "identity_cert:secret:other" not in {resource.name for resource in given}


@pytest.mark.parametrize(
    "metadata",
    [
        {"x": float("nan")},
        {"version": {"kumaDp": {"version": float("inf")}}},
        {"dataplane.resource": "[" * 100_000},
        {"dataplane.resource": '{"type": "Dataplane", "mesh": "default", "labels": {"x": "\\ud800"}}'},
    ],
    ids=["NaN", "infinity", "deep", "surrogate"],
)
async def test_metadata_that_are_no_json_are_refused(cp: Running, metadata: dict[str, Any]) -> None:
    first = discovery_pb2.DeltaDiscoveryRequest(type_url=TypeUrl.CLUSTER, node=base_pb2.Node(id="default.web-01"))
    first.node.metadata.update(metadata)
    code, _ = await said(cp, [first.SerializeToString()], cp.token("web-01"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


@common
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
async def test_what_is_no_request_ends_its_stream(cp: Running, frames: list[bytes]) -> None:
    first = discovery_pb2.DeltaDiscoveryRequest(type_url=TypeUrl.CLUSTER, node=base_pb2.Node(id="default.web-01"))
    await said(cp, [first.SerializeToString(), *frames], cp.token("web-01"))
    db = await cp.proxy(DB, cp.token("db-01"), bring=False)
    await db.until(lambda: db.certificate)
    await db.disconnect()


@common
@given(st.text(max_size=60).map(lambda text: text.encode("ascii", "ignore").decode()))
async def test_any_credential_but_the_right_one_gets_nothing(cp: Running, token: str) -> None:
    first = discovery_pb2.DeltaDiscoveryRequest(type_url=TypeUrl.CLUSTER, node=base_pb2.Node(id="default.web-01"))
    code, answers = await said(cp, [first.SerializeToString()], "".join(c for c in token if c.isprintable()))
    assert code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert answers == b""
