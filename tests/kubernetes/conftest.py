"""One Kubernetes API for the tests of this folder, in each process that runs some of them.

The first one waits for its programs to be built. They follow each other, and what is started ends with the last: an API
server that nobody asks anything is not idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.objects.definitions import definitions
from kuma.kubernetes.objects.forms import Forms
from tests.fakes.patience import PATIENCE
from tools.kubernetes.build import binaries
from tools.kubernetes.cluster import Cluster

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The API with the definitions of our kinds."""
    with Cluster(binaries(), tmp_path_factory.mktemp("kubernetes")) as found:
        made = yaml.safe_dump_all(definitions(Forms("kuma-system")))
        found.kubectl("apply", "--server-side", "-f", "-", text=made)
        found.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
        yield found


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of a test's own for what the control plane keeps, and no resource of ours anywhere else."""

    cluster: Cluster
    forms: Forms

    def client(self) -> ApiClient:
        return ApiClient(credentials.find(self.cluster.admin))

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.admin


@pytest.fixture
async def place(cluster: Cluster) -> AsyncIterator[Place]:
    forms = Forms(f"system-{next(_numbers)}")
    cluster.kubectl("create", "namespace", forms.system)
    found = Place(cluster, forms)
    await _clear(found)  # of control planes that were installed in this cluster before: they leave what users have
    yield found
    await _clear(found)


async def _clear(place: Place) -> None:
    async with place.client() as client:
        for form in place.forms.custom:
            if not form.namespaced:
                await client.delete(form.collection)
                continue
            async with asyncio.timeout(PATIENCE):
                while found := (await client.get(form.collection))["items"]:  # it removes what was a Pod's
                    for metadata in (each["metadata"] for each in found):
                        own = f"{form.group}/namespaces/{metadata['namespace']}/{form.plural}/{metadata['name']}"
                        with contextlib.suppress(ApiError):  # it has gone meanwhile; what has not is seen again
                            await client.delete(own)
