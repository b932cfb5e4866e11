"""A client in a process of its own: `python -m bench.client URL WORKFLOW RUNS PAUSE`.

Starts runs one at a time, PAUSE seconds apart, and prints when it called: nanoseconds since the epoch.
"""

from __future__ import annotations

import asyncio
import sys
from time import time_ns

from detent import Client


async def main(url: str, workflow: str, runs: int, pause: float) -> None:
    client = Client(url)
    called: list[int] = []
    for _ in range(runs):
        await asyncio.sleep(pause)
        called.append(time_ns())
        await client.astart(workflow, {"n": 0})
    print("\n".join(map(str, called)))
    client.lifecycle.backend.close()


if __name__ == "__main__":
    _, url, workflow, runs, pause = sys.argv
    asyncio.run(main(url, workflow, int(runs), float(pause)))
