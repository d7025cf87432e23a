"""Stores Secrets, with an audit record, until it is killed; prints the name of each once it is stored."""

import asyncio
import itertools
import sys
from pathlib import Path

from kuma.base.audit import AuditFile
from kuma.base.clock import SystemClock
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store import audited
from kuma.store.protocol import Create
from kuma.store.sql.embedded.sqlite import open_sqlite


async def main(directory: Path) -> None:
    store = await open_sqlite(directory / "kuma.db", SystemClock())
    store.on_commit(audited.recorder(AuditFile(directory / "audit.jsonl", SystemClock())))
    for number in itertools.count():
        await store.transact([Create(Resource(kinds.SECRET.key(f"s{number}", "m"), SecretSpec(data=b"x")))])
        print(number, flush=True)


asyncio.run(main(Path(sys.argv[1])))
