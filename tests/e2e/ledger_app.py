"""An app whose bodies leave a trace that outlives them; test_kill.py runs it in processes, and kills those.

python ledger_app.py work DATABASE LEDGER      a worker, until SIGTERM
python ledger_app.py start DATABASE LEDGER N   starts N runs of each workflow, with keys
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from detent import App, Context, Retry, Update
from detent_infra.ports import Backend, Timing
from detent_infra.sqlite import sqlite_backend

QUICK = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=1.0, visibility=1.0)
"""A dead worker is noticed after a second."""
MANY = 100
"""More than this test ever kills: nothing ends as poison here."""


def open_backend(database: Path) -> Backend:
    return sqlite_backend(database, timing=QUICK, max_receives=MANY)


def ledger_app(database: Path, ledger: Path) -> App:
    app = App("ledger", url=f"sqlite:///{database}")
    app._stand_in = open_backend(database)

    def write(what: str, ctx: Context) -> None:
        """One atomic append: what a body did to the world, whatever becomes of its worker."""
        file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, f"{ctx.path} {ctx.run_id} {what}\n".encode())
        os.close(file)

    async def effect(ctx: Context) -> None:
        write("begun", ctx)
        await asyncio.sleep(random.uniform(0.005, 0.06))
        write("done", ctx)

    retry = Retry(attempts=3, initial=0.1)
    orders = app.workflow("orders", input=int, output=int)

    @orders.step(retry=retry, takeovers=MANY)
    async def at_least_once(n: int, ctx: Context) -> int:
        await effect(ctx)
        return n

    @orders.step(retry=retry, takeovers=MANY, delivery="exactly_once")
    async def exactly_once(n: int = at_least_once.output, *, ctx: Context) -> int:
        await effect(ctx)
        ctx.commit(Update("effects", ctx.run_id, add={"count": 1, "amount": n}))
        return n

    @orders.step(retry=retry, takeovers=MANY, after=[at_least_once])
    async def beside(n: int, ctx: Context) -> int:
        await effect(ctx)
        return n

    @orders.step(retry=retry, takeovers=MANY)
    async def joined(a: int = exactly_once.output, b: int = beside.output, *, ctx: Context) -> int:
        await effect(ctx)
        return a + b

    mails = app.workflow("mails", input=int, output=int)

    @mails.step(retry=retry, takeovers=MANY)
    def address(n: int) -> int:
        return n

    @mails.step(delivery="at_most_once")
    async def at_most_once(n: int = address.output, *, ctx: Context) -> int:
        await effect(ctx)
        return n

    return app


def main(verb: str, database: str, ledger: str, count: str = "0") -> None:
    app = ledger_app(Path(database), Path(ledger))
    if verb == "work":
        app.run_worker(concurrency=6, grace=5.0)
    else:
        for workflow in app.workflows.values():
            workflow.start_many(range(int(count)), key=str)
        print("started", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
