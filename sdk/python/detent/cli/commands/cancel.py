"""Ends a live run."""

from __future__ import annotations

import asyncio

from detent_infra.runs.as_json import run_json
from detent_state_machine.records import RunRecord

from detent.cli.options import AppName, AsJson, Run, Url
from detent.cli.output import write_json, write_line
from detent.cli.project import Options, opened, run_id_of


def cancel(run: Run, app: AppName = None, url: Url = None, json: AsJson = False) -> None:
    """End a live run.

    No new step starts; one in progress hears of it at its next heartbeat.
    """

    ended = asyncio.run(_cancel(Options(app, url), run))
    if json:
        write_json(run_json(ended))
    else:
        write_line(f"Cancelled {ended.run_id}.")


async def _cancel(options: Options, given: str) -> RunRecord:
    async with opened(options) as client:
        return await client.lifecycle.cancel(await run_id_of(client, given))
