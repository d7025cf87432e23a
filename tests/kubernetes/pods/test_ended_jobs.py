"""Which Pods wait for their sidecar only, and where sidecars are ended by the nodes themselves."""

from __future__ import annotations

import asyncio
import http.server
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from kuma.app import injected
from kuma.app.configuration.settings import Settings
from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.credentials import Credentials
from kuma.kubernetes.api.informer import Informer, Place
from kuma.kubernetes.controllers.jobs import EndedJobs
from kuma.kubernetes.workloads import jobs
from tests.fakes.patience import PATIENCE

RUNS: Mapping[str, Any] = {"running": {}}
DONE: Mapping[str, Any] = {"terminated": {"exitCode": 0}}
FAILED: Mapping[str, Any] = {"terminated": {"exitCode": 1}}


def pod(policy: str, states: Mapping[str, Mapping[str, Any]], **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "job-1", **metadata},
        "spec": {"restartPolicy": policy, "containers": [{"name": name} for name in states]},
        "status": {"containerStatuses": [{"name": name, "state": state} for name, state in states.items()]},
    }


@pytest.mark.parametrize(
    ("policy", "states", "waits"),
    [
        ("Never", {"kuma-sidecar": RUNS, "app": DONE}, True),
        ("Never", {"kuma-sidecar": RUNS, "app": FAILED}, True),
        ("OnFailure", {"kuma-sidecar": RUNS, "app": DONE}, True),
        ("OnFailure", {"kuma-sidecar": RUNS, "app": FAILED}, False),  # it is started again
        ("Always", {"kuma-sidecar": RUNS, "app": DONE}, False),
        ("Never", {"kuma-sidecar": RUNS, "app": DONE, "other": RUNS}, False),
        ("Never", {"kuma-sidecar": RUNS, "app": {"waiting": {}}}, False),
        ("Never", {"kuma-sidecar": RUNS, "app": {}}, False),
        ("Never", {"kuma-sidecar": DONE, "app": DONE}, False),  # its address may be another Pod's by now
        ("Never", {"kuma-sidecar": RUNS}, False),
        ("Never", {"app": DONE}, False),  # a native sidecar is no container like the others
    ],
)
def test_a_sidecar_ends_when_nothing_else_runs_or_will(
    policy: str, states: Mapping[str, Mapping[str, Any]], waits: bool
) -> None:
    assert jobs.waits_for_sidecar(pod(policy, states)) is waits


def test_a_pod_that_is_deleted_is_ended_by_its_node() -> None:
    states = {"kuma-sidecar": RUNS, "app": DONE}
    assert not jobs.waits_for_sidecar(pod("Never", states, deletionTimestamp="2026-01-01T00:00:00Z"))


def node(name: str, version: str, system: str = "linux") -> dict[str, Any]:
    info = {"kubeletVersion": version, "operatingSystem": system}
    return {"metadata": {"name": name}, "status": {"nodeInfo": info}}


@contextmanager
def api(minor: str, nodes: list[dict[str, Any]] | None) -> Iterator[tuple[str, list[str]]]:
    """An API server of a version, with nodes, or with none that it tells of; and the paths that it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.partition("?")[0])
            body: dict[str, Any] = {"major": "1", "minor": minor}
            if asked[-1] != "/version":
                body = {"items": nodes, "metadata": {"resourceVersion": "1"}}
            self.send_response(403 if body.get("items", ()) is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


OLD, NEW = node("old", "v1.28.9-gke.1"), node("new", "v1.29.0")


@pytest.mark.parametrize(
    ("minor", "nodes", "native"),
    [
        ("28", [NEW], False),
        ("29", [NEW], True),
        ("30+", [NEW, OLD], False),
        ("31", [NEW, node("windows", "v1.28.9", "windows")], True),
        ("31", None, True),  # we may not ask: as the API server has it
        ("37", [OLD], True),  # no version of Kubernetes lets a node be so old: it is not asked
    ],
)
async def test_sidecars_are_native_where_the_api_server_and_all_nodes_have_them(
    minor: str, nodes: list[dict[str, Any]] | None, native: bool
) -> None:
    with api(minor, nodes) as (url, asked):
        async with ApiClient(Credentials(url, ssl.create_default_context(), lambda: "")) as client:
            found = await injected.sidecars(Settings(), client, "kuma-system")
    assert found.native is native
    assert ("/api/v1/nodes" in asked) is (minor in ("29", "30+", "31"))


async def test_a_pod_that_goes_while_others_are_ended_stops_nothing() -> None:
    async with ApiClient(Credentials("http://127.0.0.1:1", ssl.create_default_context(), lambda: "")) as client:
        pods, ended = Pods(client), list[str]()

        async def end(mesh: str, name: str) -> None:
            ended.append(name)
            pods.gone(("a", "job-2"))

        controller = EndedJobs(pods, end)
        for name in ("job-1", "job-2"):
            pods.come(("a", name), {"kuma.io/sidecar-injected": "true"})
        running = aio.spawn(controller.run(), name="sidecars of ended jobs")
        while not ended and not running.done():
            await asyncio.sleep(0)
        pods.come(("a", "job-3"), {"kuma.io/sidecar-injected": "true"})
        while "job-3.a" not in ended and not running.done():
            await asyncio.sleep(0)
        assert not running.done(), running
        await aio.stop([running])
    assert set(ended) == {"job-1.a", "job-3.a"}


async def test_a_sidecar_that_does_not_end_is_asked_again_and_told_of_when_the_reason_is_another() -> None:
    at_once = aio.Backoff(first=0.001, last=0.001)
    async with ApiClient(Credentials("http://127.0.0.1:1", ssl.create_default_context(), lambda: "")) as client:
        pods, asked = Pods(client), list[str]()

        async def end(mesh: str, name: str) -> None:
            asked.append(name)
            if len(asked) <= 6:
                raise Unavailable("it says nothing" if len(asked) <= 3 else "it says no")
            if len(asked) == 9:
                pods.gone(("a", "job-1"))

        with structlog.testing.capture_logs() as logs:
            running = aio.spawn(EndedJobs(pods, end, at_once).run(), name="sidecars of ended jobs")
            pods.come(("a", "job-1"), {"kuma.io/sidecar-injected": "true"})
            async with asyncio.timeout(PATIENCE):
                while len(asked) < 9 and not running.done():
                    await asyncio.sleep(0.001)
            await aio.stop([running])
    assert len(asked) == 9
    assert [(entry["log_level"], entry.get("reason")) for entry in logs] == [
        ("warning", "it says nothing"), ("warning", "it says no"), ("info", None),
    ]  # fmt: skip


class Pods(Informer):
    """Pods whose work is done, of which the test says when they come and go."""

    def __init__(self, client: ApiClient) -> None:
        super().__init__(client, "/api/v1/pods")

    def come(self, place: Place, annotations: Mapping[str, str]) -> None:
        done = pod("Never", {"kuma-sidecar": RUNS, "app": DONE})
        self._objects[place] = {**done, "metadata": {"name": place[1], "annotations": annotations}}
        for listener in self._listeners:
            listener(place)

    def gone(self, place: Place) -> None:
        self._objects.pop(place, None)
