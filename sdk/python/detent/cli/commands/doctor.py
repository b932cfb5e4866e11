"""Checks the app and the backend, or a deployed stack; each finding says what to do."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from typing import Annotated

import typer
from detent_infra.connect import redacted
from detent_infra.ops.doctor.backend_checks import check_backend
from detent_infra.ops.doctor.findings import Finding, failed
from detent_state_machine.errors import DetentError

from detent.cli.findings import FindingsReport
from detent.cli.options import AppName, AsJson, Url
from detent.cli.project import Options, app_name, find_app, place


def doctor(
    stack: Annotated[
        str | None,
        typer.Option("--stack", metavar="NAME", help="Look at this deployed stack instead: its name or aws:// URL."),
    ] = None,
    app: AppName = None,
    url: Url = None,
    json: AsJson = False,
) -> None:
    """Check the app and the backend, and say what to fix.

    With --stack, check how a stack is set up on AWS, without changing anything. Exit code 2 if something is wrong.
    """
    if stack is not None:
        from detent_state_machine.errors import InputError

        if app is not None or url is not None:
            raise InputError("--stack looks at a stack, and at no app or other backend.", advice="Leave one out.")
        raise typer.Exit(_examine_stack(stack, as_json=json))

    raise typer.Exit(_examine(Options(app, url), as_json=json))


def _examine(options: Options, *, as_json: bool) -> int:
    """Prints every check as it is done; returns the exit code: 2 if one failed."""
    return asyncio.run(_examine_app(options, as_json=as_json))


async def _examine_app(options: Options, *, as_json: bool) -> int:
    report = FindingsReport(as_json=as_json)
    async for check in _checks(options):
        report.add(check)
    return report.close()


async def _checks(options: Options) -> AsyncIterator[Finding]:
    yield Finding(
        "detent", "ok", f"detent {version('detent')} on Python {platform.python_version()}, {platform.system()}"
    )
    for check in _app_checks(options):
        yield check
    try:
        chosen = place(options)
    except DetentError:
        yield Finding(
            "backend", "fail", "Which one is meant is not known without the app.", "Fix the app, or pass --url."
        )
        return
    yield Finding("url", "ok", f"{redacted(chosen.value)} (from {chosen.source})")
    async for check in check_backend(chosen.value):
        yield check


def _app_checks(options: Options) -> Iterator[Finding]:
    try:
        chosen = app_name(options)
        app = find_app(options)
    except DetentError as error:
        yield failed("app", error)
        return
    if chosen is None or app is None:
        yield Finding(
            "app", "warn", "No app is named.", "Pass --app module:attribute, or set DETENT_APP, to check it as well."
        )
        return
    yield Finding("app", "ok", f"{chosen.value} (from {chosen.source}), named {app.name!r}")
    if not app.workflows:
        yield Finding("workflows", "fail", "The app declares none.", "Import the modules that declare them beside it.")
    for name, workflow in app.workflows.items():
        try:
            definition = workflow.definition
        except DetentError as error:
            yield failed("workflows", error)
        else:
            yield Finding("workflows", "ok", f"{name}: {len(definition.steps)} steps, version {definition.version}")


def _examine_stack(stack: str, *, as_json: bool) -> int:
    """Prints every finding about the stack, given by name or `aws://` URL; returns the exit code: 2 if one failed.

    Raises `ConfigurationError` if there is no such stack, or no way to look at it.
    """
    from detent_infra.ops.doctor.stack_checks import judge
    from detent_infra.ops.stack.reading import read_stack_at

    report = FindingsReport(as_json=as_json)
    for check in judge(read_stack_at(stack if "://" in stack else f"aws://{stack}")):
        report.add(check)
    return report.close()
