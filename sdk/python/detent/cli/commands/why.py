"""Says why a run does not move."""

from __future__ import annotations

import asyncio

from detent_infra.runs.as_json import iso
from detent_infra.runs.why import why as reasons_of
from detent_state_machine.why import Reason, sentence

from detent.cli.options import AppName, AsJson, Run, Url
from detent.cli.output import write_json, write_line
from detent.cli.project import Options, opened, run_id_of


def why(run: Run, app: AppName = None, url: Url = None, json: AsJson = False) -> None:
    """Say why a run does not move: what it waits for, since when, and until when.

    From its records alone: it asks no worker, so it tells the truth when there is none.
    """
    said, found = asyncio.run(_read(Options(app, url), run))
    if json:
        write_json({"said": said, "steps": [_json(each) for each in found]})
    else:
        write_line(said)


async def _read(options: Options, given: str) -> tuple[str, list[Reason]]:
    async with opened(options) as client:
        lifecycle = client.lifecycle
        run = await lifecycle.get(await run_id_of(client, given))
        now = lifecycle.backend.clock()
        found = await reasons_of(lifecycle, run, now)
        return sentence(run, found), found


def _json(reason: Reason) -> dict[str, object]:
    return {
        "step": reason.path,
        "cause": reason.cause.value,
        "said": reason.said,
        "since": iso(reason.since),
        "until": iso(reason.until),
    }
