"""A process that takes up jobs of a bucket that never finishes giving its manifest; to be killed.

Called with the database's URL and the storage's id; says `loading` once frames are on their way.
"""

import asyncio
import sys

from app.db.session import Database
from tests.jobs.conftest import World, lines


async def main(url: str, storage_id: int) -> None:
    """Load half of a manifest, say so, and wait."""
    world = World(Database(url), 0, storage_id)
    world.bucket.chunk = 200_000
    world.bucket.gate = asyncio.Semaphore(10)
    world.bucket.put("set/manifest.jsonl", lines(*map(str, range(100_000))))
    runner = world.runner()
    await runner.start()
    while world.bucket.gate.locked() is False:
        await asyncio.sleep(0.01)
    print("loading", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
