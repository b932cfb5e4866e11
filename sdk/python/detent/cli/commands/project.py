"""A project: made, looked at, checked."""

from __future__ import annotations

from typing import Annotated

import typer

from detent.cli.commands.options import AppName, AsJson, Url
from detent.cli.project import Options


def init(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="Made if it is not there; else it must be empty.")
    ] = ".",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the project. Default: the directory's.")] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print the platform's template.yaml for this app, and write nothing.")
    ] = False,
    app: AppName = None,
    json: AsJson = False,
) -> None:
    """Make a project: an app, its tests, and all it takes to run and deploy it."""
    from pathlib import Path

    from detent.cli.init import make_project, print_template

    if template:
        print_template(Options(app))
    else:
        make_project(Path(folder), name, as_json=json)


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
    from detent.cli.graph import list_workflows, show_graph

    if list:
        list_workflows(Options(app, url), as_json=json)
    else:
        show_graph(Options(app, url), workflow, mermaid=mermaid, as_json=json)


def doctor(
    stack: Annotated[
        str | None,
        typer.Option("--stack", metavar="NAME", help="Look at this deployed stack instead: its name or aws:// URL."),
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Check the app and the backend, and say what to mend.

    With --stack, check how a stack is set up on AWS, without changing anything. Exit code 2 if something is wrong.
    """
    if stack is not None:
        from detent_state_machine.errors import InputError

        from detent.cli.stack_doctor import examine_stack

        if app is not None or url is not None:
            raise InputError("--stack looks at a stack, and at no app or other backend.", advice="Leave one out.")
        raise typer.Exit(examine_stack(stack, as_json=json))
    from detent.cli.doctor import examine

    raise typer.Exit(examine(Options(app, url), as_json=json))
