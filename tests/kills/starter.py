"""python -m tests.kills.starter RATE: starts so many runs of each workflow a second, until SIGTERM.

It goes on where its predecessor was killed: what that one may have started without being told, it starts again, which
a key makes harmless.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter

from detent import Client

from tests.kills.app import WORKFLOWS, app
from tests.kills.ledger import Ledger

EVERY = 0.5
"""Seconds between two batches."""


async def start_runs(client: Client, ledger: Ledger, rate: float, stop: asyncio.Event) -> None:
    already = Counter(start.workflow for start in ledger.read().starts)
    each = max(1, round(rate * EVERY))
    while not stop.is_set():
        for name, workflow in WORKFLOWS.items():
            numbers = range(already[name], already[name] + each)
            handles = await client.astart_many(workflow, numbers, key=str)
            for number, handle in zip(numbers, handles, strict=True):
                ledger.append("started", name, number, handle.id)
            already[name] += each
        try:
            await asyncio.wait_for(stop.wait(), EVERY)
        except TimeoutError:
            continue


async def main(rate: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await start_runs(app.client, Ledger.from_environment(), rate, stop)
    app.backend.close()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
