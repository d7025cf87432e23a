"""As `tests.conformance.crashing_writer`, over the Kubernetes API."""

import asyncio
import itertools
import sys
from pathlib import Path

from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.store.store import KubernetesStore
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create


async def main(kubeconfig: Path, system: str, prefix: str) -> None:
    async with ApiClient(credentials.find(kubeconfig)) as client:
        store = KubernetesStore(client, Forms(system))
        for number in itertools.count():
            pair = f"r{prefix}-{number}"
            keys = [kinds.SECRET.key(f"{pair}-{part}", "m") for part in ("cert", "key")]
            await store.transact([Create(Resource(key, SecretSpec(data=b"x"))) for key in keys])
            print(pair, flush=True)


asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
