"""Every command with its options, by topic. The work is elsewhere, and loaded only by the command that needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from detent.cli.commands.deploying import deploy, package
from detent.cli.commands.project import doctor, graph, init
from detent.cli.commands.queues import dead, failed_starts, send
from detent.cli.commands.runs import cancel, cost, logs, retry, run, runs, show
from detent.cli.commands.workers import dev, dev_worker, worker

__all__ = ["commands"]

commands = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@commands.callback(invoke_without_command=True)
def detent(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Durable workflows: on one SQLite file here, on DynamoDB and SQS there."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"detent {version_of('detent')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (
    init,
    dev,
    worker,
    run,
    runs,
    show,
    logs,
    cost,
    cancel,
    retry,
    send,
    dead,
    failed_starts,
    package,
    deploy,
    graph,
    doctor,
):
    commands.command()(command)  # in the order of `detent --help`
commands.command(hidden=True)(dev_worker)
