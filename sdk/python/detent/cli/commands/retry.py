"""Starts a new run where another one ended."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from detent.cli.follow import follow_to_result, print_run_id, view_for
from detent.cli.options import AppName, AsJson, Run, Url
from detent.cli.project import Options, opened, run_id_of


def retry(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its steps, and end with its result.")] = False,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Start a new run where a failed or cancelled one ended.

    Prints the new run's id. Completed steps do not run again.
    """

    asyncio.run(_retry(Options(app, url), run, follow=follow, as_json=json))


async def _retry(options: Options, given: str, *, follow: bool, as_json: bool) -> None:
    """Raises `RunError` if the run is followed and ends without a result."""
    async with opened(options) as client:
        new_id = (await client.aretry(await run_id_of(client, given))).id
        if follow:
            await follow_to_result(client, new_id, view_for(new_id, options, as_json=as_json), as_json=as_json)
        else:
            print_run_id(new_id, options, as_json=as_json)
