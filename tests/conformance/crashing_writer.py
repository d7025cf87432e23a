"""Several writers create, change and delete pairs of Secrets until they are killed, and say when each is stored."""

import asyncio
import itertools
import sys
from collections.abc import Sequence

from kuma.base.clock import SystemClock
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete, Store, Update
from tests.fakes.stores import open_store

WRITERS = 6
"""At once: the store puts what they ask for at the same time into one transaction of the database."""
CREATED, CHANGED, DELETED = b"1", b"2", b"3"
"""States of a pair, and what its Secrets hold in the first two."""


async def write(store: Store, name: str) -> None:
    for number in itertools.count():
        pair = f"{name}-{number}"
        keys = [kinds.SECRET.key(f"{pair}-{part}", "m") for part in ("cert", "key")]
        stored = await store.transact([Create(Resource(key, SecretSpec(data=CREATED))) for key in keys])
        print(pair, CREATED.decode(), flush=True)
        await store.transact([Update(secret.with_spec(SecretSpec(data=CHANGED))) for secret in stored])
        print(pair, CHANGED.decode(), flush=True)
        if number % 3 == 0:
            await store.transact([Delete(key) for key in keys])
            print(pair, DELETED.decode(), flush=True)


async def main(prefix: str, address: Sequence[str]) -> None:
    store = await open_store(address, SystemClock())
    await asyncio.gather(*(write(store, f"r{prefix}-{writer}") for writer in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
