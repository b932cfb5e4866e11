"""Runs: started, looked at, ended, begun again."""

from __future__ import annotations

from typing import Annotated

import typer

from detent.cli.commands.options import AppName, AsJson, Metadata, Run, Url
from detent.cli.project import Options


def run(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW")],
    input: Annotated[
        str | None, typer.Argument(metavar="JSON", help="The input: JSON, @FILE, or - for standard input.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its steps, and end with its result.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Work in this process too, until the run ends. Implies --follow.")
    ] = False,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="The same key and input start one run only.")] = None,
    metadata: Metadata = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Start a run and print its id, or, with --follow, its result.

    With --follow, the exit code is 1 if the run fails or is cancelled.
    """
    from detent.cli.run import Request, start

    start(Options(app, url), Request(workflow, input, key, metadata or []), follow=follow, here=here, as_json=json)


def runs(
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Only runs of this workflow.")
    ] = None,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", metavar="STATUS", help="Only these; repeat it, or join with commas."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Started since: 10m, 2h, 3d, or an ISO time.")
    ] = None,
    metadata: Metadata = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many.")] = 20,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from detent.cli.runs import Filter, show_runs

    show_runs(Options(app, url), Filter(workflow, status or [], since, metadata or [], limit), as_json=json)


def show(run: Run, app: AppName = None, url: Url = None, json: AsJson = False) -> None:
    """Show a run: its steps in time, its output or its error."""
    from detent.cli.show import show_run

    show_run(Options(app, url), run, as_json=json)


def logs(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run id, or `last`. Without it: all runs, the last 10 minutes."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Lines since: 10m, 2h, 3d, or an ISO time.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Lines until then.")] = None,
    step: Annotated[str | None, typer.Option(metavar="PATH", help="Only this step, all its attempts.")] = None,
    level: Annotated[str | None, typer.Option(metavar="LEVEL", help="Only this level and above, as in warn.")] = None,
    filter: Annotated[str, typer.Option("--filter", metavar="PATTERN", help="A CloudWatch Logs filter pattern.")] = "",
    children: Annotated[bool, typer.Option("--children", help="The runs that came of it too: its retries.")] = False,
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Only runs of this workflow; without RUN.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", metavar="N", min=1, help="The first so many; 10,000, unless it follows."),
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", min=1, help="Search at most so long; 60, unless it follows."),
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Print the log of a run, or of all.

    With --json, one JSON object per line.
    """
    from detent.cli.logs import Wanted, show_logs

    wanted = Wanted(run, workflow, step, level, filter, since, until, children, limit, timeout)
    show_logs(Options(app, url), wanted, follow=follow, as_json=json)


def cost(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run id, or `last` for the newest run.", show_default=False)
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option("--workflow", "-w", metavar="NAME", help="Instead of RUN: the average of its newest ended runs."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="Of at most so many runs.")] = 20,
    memory: Annotated[int, typer.Option(metavar="MB", min=128, max=10_240, help="The Lambda worker's memory.")] = 1024,
    architecture: Annotated[
        str, typer.Option(metavar="NAME", help="What the Lambda worker runs on: arm64 or x86_64.")
    ] = "arm64",
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Estimate what a run costs on AWS, from its records.

    On any backend: for a run on SQLite it is what the same run would cost on AWS.
    """
    from detent.cli.cost import Question, show_cost

    show_cost(Options(app, url), Question(run, workflow, limit, memory, architecture), as_json=json)


def cancel(run: Run, app: AppName = None, url: Url = None, json: AsJson = False) -> None:
    """End a live run.

    No new step starts; one in progress hears of it at its next heartbeat.
    """
    from detent.cli.runs import cancel_run

    cancel_run(Options(app, url), run, as_json=json)


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
    from detent.cli.run import retry_run

    retry_run(Options(app, url), run, follow=follow, as_json=json)
