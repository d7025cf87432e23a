"""Writes pairs of Secrets until it is killed; prints the name of each pair when it has been stored."""

import asyncio
import itertools
import sys
from collections.abc import Sequence

from kuma.base.clock import SystemClock
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from tests.fakes.stores import open_store


async def main(prefix: str, address: Sequence[str]) -> None:
    store = await open_store(address, SystemClock())
    for number in itertools.count():
        pair = f"r{prefix}-{number}"
        secrets = [Resource(kinds.SECRET.key(f"{pair}-{part}", "m"), SecretSpec(data=b"x")) for part in ("cert", "key")]
        await store.transact([Create(secret) for secret in secrets])
        print(pair, flush=True)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
