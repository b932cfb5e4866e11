"""The table of commands. A command is a module with a function of its own name, loaded when somebody calls it.

To add one: write the module, and add a line here. Its help begins with the sentence of this table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Annotated, NamedTuple, Protocol

import typer
from typer.core import TyperGroup

__all__ = ["COMMANDS", "CommandLine", "command_line", "function_of"]


class CommandLine(NamedTuple):
    """What `detent --help` says of a command, and where the command is."""

    module: str
    help: str
    hidden: bool = False


COMMANDS: Mapping[str, CommandLine] = {
    "init": CommandLine("init", "Make a project: an app, its tests, and all it takes to run and deploy it."),
    "dev": CommandLine("dev", "Work on runs, show them, and reload when the code changes."),
    "worker": CommandLine("worker", "Work on runs until SIGTERM or Ctrl-C."),
    "run": CommandLine("run", "Start a run and print its id, or, with --follow, its result."),
    "runs": CommandLine("runs", "List runs, newest first."),
    "show": CommandLine("show", "Show a run: its steps in time, its output or its error."),
    "why": CommandLine("why", "Say why a run does not move: what it waits for, since when, and until when."),
    "logs": CommandLine("logs", "Print the log of a run, or of all."),
    "cost": CommandLine("cost", "Estimate what a run costs on AWS, from its records."),
    "cancel": CommandLine("cancel", "End a live run."),
    "retry": CommandLine("retry", "Start a new run where a failed or cancelled one ended."),
    "publish": CommandLine("publish", "Publish an event to the runs that wait for it, now or later."),
    "send": CommandLine("send", "Put a message into a queue whose messages start runs, and print its id."),
    "dead": CommandLine("dead", "List messages of a queue that could start nothing, with the reason."),
    "failed-starts": CommandLine(
        "failed_starts", "List events that a stack's start function could not start, with the reason."
    ),
    "package": CommandLine(
        "package", "Make the folder that Lambda unpacks: detent, the app, and its locked dependencies."
    ),
    "deploy": CommandLine(
        "deploy", "Package the app, deploy it to AWS as a CloudFormation stack, and register its workflows."
    ),
    "graph": CommandLine("graph", "Draw a workflow, or list them."),
    "doctor": CommandLine("doctor", "Check the app and the backend, and say what to fix."),
    "dev-worker": CommandLine("dev", "The worker inside `dev`.", hidden=True),
}
"""By name, in the order of `detent --help`."""


def function_of(name: str) -> Callable[..., None]:
    """The function of the command: its parameters are the options, its docstring the help."""
    module = importlib.import_module(f"detent.cli.commands.{COMMANDS[name].module}")
    found: Callable[..., None] = getattr(module, name.replace("-", "_"))
    return found


def command_line(load: Collection[str]) -> typer.Typer:
    """The command line, in which the commands `load` are complete. The others have a name and a line of help."""
    program = typer.Typer(
        cls=_Commands,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback(invoke_without_command=True)(detent)
    for name, (_, help, hidden) in COMMANDS.items():
        if name in load:
            program.command(name, hidden=hidden)(function_of(name))
        else:
            program.command(name, help=help, hidden=hidden)(_not_loaded)
    return program


class _Formatter(Protocol):
    """What writes a help page. The class lives in click, or, in newer versions of typer, inside typer."""

    def section(self, name: str, /) -> AbstractContextManager[None]: ...
    def write_dl(self, rows: list[tuple[str, str]], /) -> None: ...


class _Commands(TyperGroup):
    """Lists the commands with their whole description: it goes on under itself where the terminal is narrow."""

    def format_commands(self, ctx: object, formatter: _Formatter) -> None:  # noqa: ARG002 - typer's signature
        rows = [(name, command.help) for name, command in COMMANDS.items() if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


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


def _not_loaded() -> None:
    raise AssertionError("this command was not loaded")
