"""Draws workflows, and lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

import typer
from detent_state_machine import draw
from detent_state_machine.definition import Definition
from detent_state_machine.errors import InputError

from detent.cli.options import AppName, AsJson, Url
from detent.cli.output import ascii_only, console, one_line, say_left_out, write_json, write_line
from detent.cli.output import name as named
from detent.cli.project import Options, find_app, opened, unknown_workflow


def graph(
    workflow: Annotated[str | None, typer.Argument(metavar="WORKFLOW", help="Not needed if there is one only.")] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    list: Annotated[bool, typer.Option("--list", "-l", help="List the workflows.")] = False,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Draw a workflow, or list them.

    It is the app's; without an app, the newest that a worker has registered.
    """

    if list:
        list_workflows(Options(app, url), as_json=json)
    else:
        show_graph(Options(app, url), workflow, mermaid=mermaid, as_json=json)


def show_graph(options: Options, workflow: str | None, *, mermaid: bool, as_json: bool) -> None:
    definitions, where = _definitions(options)
    if workflow is None:
        workflow = _only(definitions, where)
    if workflow not in definitions:
        raise unknown_workflow(workflow, definitions, where)
    definition = definitions[workflow]
    out = console()
    if as_json:
        write_json({"version": definition.version, **definition.model_dump(mode="json")})
    elif mermaid:
        write_line(draw.mermaid(definition).rstrip("\n"))
    else:
        write_line(draw.text(definition, width=out.width, ascii=ascii_only(out)).rstrip("\n"))


def list_workflows(options: Options, *, as_json: bool) -> None:
    definitions, where = _definitions(options)
    if as_json:
        write_json([_listed(definition) for definition in definitions.values()])
        return
    if not definitions:
        console(stderr=True).print(f"{where} has no workflow.", soft_wrap=True)
        return
    from rich.table import Table
    from rich.text import Text

    out = console()
    longest = max(len("WORKFLOW"), *(len(name) for name in definitions))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column("WORKFLOW", no_wrap=True, overflow="ellipsis", min_width=min(24, longest))
    table.add_column("STEPS", justify="right", no_wrap=True)
    if out.width >= 60:
        table.add_column("VERSION", no_wrap=True)
    table.add_column("DESCRIPTION", no_wrap=True, overflow="ellipsis")
    for definition in definitions.values():
        cells = [Text(named(definition.name)), Text(str(len(definition.steps)))]
        if out.width >= 60:
            cells.append(Text(definition.version, "bright_black"))
        table.add_row(*cells, Text(one_line(definition.description)))
    out.print(table)
    say_left_out([] if out.width >= 60 else ["VERSION"])


def _listed(definition: Definition) -> dict[str, object]:
    return {
        "workflow": definition.name,
        "version": definition.version,
        "steps": [step.name for step in definition.steps],
        "description": definition.description,
    }


def _definitions(options: Options) -> tuple[Mapping[str, Definition], str]:
    """The workflows by name, and what has them: the app, or else the backend."""
    app = find_app(options)
    if app is not None:
        return dict(sorted(app.definitions().items())), f"App {app.name!r}"
    return asyncio.run(_registered(options))


async def _registered(options: Options) -> tuple[Mapping[str, Definition], str]:
    async with opened(options) as client:
        known = client.lifecycle.definitions
        return {name: await known.newest(name) for name in await known.names()}, client.url


def _only(definitions: Mapping[str, Definition], where: str) -> str:
    if len(definitions) == 1:
        return next(iter(definitions))
    raise InputError(
        f"{where} has {len(definitions)} workflows: {', '.join(definitions)}.".replace(": .", "."),
        advice="Say which one: `detent graph WORKFLOW`.",
    )
