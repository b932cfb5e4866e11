"""Makes a project that passes its tests, runs here, and deploys as it is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from detent_state_machine.errors import ConfigurationError, InputError

from detent.cli.options import AppName, AsJson
from detent.cli.output import clean, console, write_json, write_line
from detent.cli.project import Options, app_name
from detent.scaffold import Names, files, names_of, platform

SHOWN = 8


def init(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="Made if it is not there; else it must be empty.")
    ] = ".",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the project. Default: the directory's.")] = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print the platform's template.yaml for this app, and write nothing.")
    ] = False,
    for_this_machine: Annotated[
        bool,
        typer.Option(
            "--for-this-machine",
            help="Write this machine's Python and processor into template.yaml: for a stand-in for AWS that runs here.",
        ),
    ] = False,
    app: AppName = None,
    json: AsJson = False,
) -> None:
    """Make a project: an app, its tests, and all it takes to run and deploy it."""
    from pathlib import Path

    if template:
        print_template(Options(app), for_this_machine=for_this_machine)
    else:
        make_project(Path(folder), name, for_this_machine=for_this_machine, as_json=json)


def make_project(folder: Path, name: str | None, *, for_this_machine: bool = False, as_json: bool) -> None:
    """Writes the project. Raises `InputError`, and then nothing was written or changed."""
    names = names_of(name if name is not None else folder.absolute().name)
    wanted = files(names, for_this_machine=for_this_machine)
    _must_be_free(folder, wanted)
    _write(folder, wanted)
    if as_json:
        write_json(
            {
                "folder": str(folder.absolute()),
                "package": names.package,
                "app": names.app,
                "stack": names.stack,
                "files": sorted(wanted),
            }
        )
    else:
        _tell(folder, names, wanted)


def print_template(options: Options, *, for_this_machine: bool = False) -> None:
    """The platform's template for the app that is configured here."""
    app = app_name(options)
    if app is None:
        raise ConfigurationError(
            "No app is named, and the template has to name one.", advice="Run this in your project, or pass --app."
        )
    write_line(platform(app.value, for_this_machine=for_this_machine).rstrip("\n"))


def _must_be_free(folder: Path, wanted: Mapping[str, str]) -> None:
    """Nothing may be there but what begins with a dot and is not ours, such as .git and .venv."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.", advice="Name a directory that is empty, or not there yet.")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    overwritten = [path for path in sorted(wanted) if (folder / path).exists()]
    if overwritten:
        raise InputError(
            f"{folder} has {_few(overwritten)}, which would be overwritten. Nothing was written.",
            advice="Name another directory.",
        )
    if others := [name for name in there if not name.startswith(".")]:
        raise InputError(
            f"{folder} is not empty: it has {_few(others)}. Nothing was written.",
            advice="Name another directory, as in `detent init shop`.",
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _write(folder: Path, wanted: Mapping[str, str]) -> None:
    """All of it or nothing: what was written is taken back if the rest cannot be."""
    made: list[Path] = []
    try:
        for path, text in wanted.items():
            file = folder / path
            for parent in reversed([parent for parent in file.parents if not parent.exists()]):
                parent.mkdir()
                made.append(parent)
            made.append(file)
            with file.open("x", encoding="utf-8", newline="\n") as out:
                out.write(text)
    except OSError as error:
        for path_made in reversed(made):
            with suppress(OSError):
                path_made.rmdir() if path_made.is_dir() else path_made.unlink()
        raise InputError(
            f"{error.filename or folder} cannot be written: {error.strerror}. Nothing is left of it.",
            advice="Name a directory that you may write to.",
        ) from error


def _tell(folder: Path, names: Names, wanted: Mapping[str, str]) -> None:
    out = console()
    here = folder.absolute() == Path.cwd()
    out.print(f"{clean(str(folder))}: {len(wanted)} files, workflow refunds in {names.package}/app.py", soft_wrap=True)
    out.print("Next:")
    go = "" if here else f"cd {clean(shlex.quote(str(folder)))} && "
    out.print(f"  {go}make test", soft_wrap=True)
    out.print("  detent run refunds @refund.json --here")
    out.print("  detent dev")
