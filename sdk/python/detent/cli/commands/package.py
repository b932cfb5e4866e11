"""Makes the folder that Lambda unpacks, and says what it weighs."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from detent_infra.ops.packaging import LIMIT, LOCK, MB, Folder, build, read_project, read_target, write_lock
from detent_infra.ops.packaging.target import TEMPLATE
from detent_state_machine.errors import ConfigurationError

from detent.cli.options import AppName, AsJson
from detent.cli.output import clean, console, write_json, write_line
from detent.cli.project import Options, app_name

SHOWN = 10
"""Parts of the folder that are listed, the largest first. `--json` has all."""


def package(
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="The folder to make or replace. Default: build/lambda.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(metavar="NAME", help="arm64 or x86_64. Default: template.yaml's.")
    ] = None,
    python_version: Annotated[
        str | None, typer.Option(metavar="3.N", help="Of the Lambda runtime. Default: template.yaml's.")
    ] = None,
    bytecode: Annotated[
        bool | None, typer.Option(help="Compile the modules. Default: if a Python of that version is found.")
    ] = None,
    compile_with: Annotated[str | None, typer.Option(metavar="PYTHON", help="A Python of that version.")] = None,
    lock: Annotated[bool, typer.Option("--lock", help="Write requirements.lock instead.")] = False,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="With --lock: take the newest versions.")] = False,
    app: AppName = None,
    json: AsJson = False,
) -> None:
    """Make the folder that Lambda unpacks: detent, the app, and its locked dependencies.

    It holds what template.yaml's runtime and architecture load, whatever this machine is. Needs `detent[deploy]`.
    """
    from detent_state_machine.errors import InputError

    if upgrade and not lock:
        raise InputError("--upgrade changes what is locked.", advice="detent package --lock --upgrade")
    if lock:
        written = "--no-bytecode" if bytecode is False else "--bytecode"
        of_folder = {"--out": out, "--architecture": architecture, written: bytecode, "--compile-with": compile_with}
        for option in [option for option, value in of_folder.items() if value is not None]:
            raise InputError(
                f"{option} is about the folder; --lock makes none, and its lock serves every one.",
                advice=f"Leave {option} out here, and give it to the `detent package` that follows.",
            )
        _lock(python_version, upgrade=upgrade, as_json=json)
    else:
        wanted = PackageOptions(out or "build/lambda", python_version, architecture, bytecode, compile_with)
        _package(Options(app), wanted, as_json=json)


@dataclass(frozen=True, slots=True)
class PackageOptions:
    """The command's options as given; None leaves it to template.yaml."""

    out: str
    python: str | None
    architecture: str | None
    bytecode: bool | None
    compiler: str | None


def _package(options: Options, wanted: PackageOptions, *, as_json: bool) -> None:
    """Makes the folder. Raises `ConfigurationError`, `InputError`, and then leaves everything as it was."""
    root = Path.cwd()
    project = read_project(root)
    target = read_target(root / TEMPLATE, python=wanted.python, architecture=wanted.architecture)
    app = app_name(options)
    if app is None:
        raise ConfigurationError(
            "No app is named.",
            advice='Pass --app module:attribute, or write `app = "module:attribute"` under [tool.detent] '
            "in pyproject.toml.",
        )
    with _busy(f"packaging {app.value} for {target}"):
        folder = build(
            project, app.value, target, root / wanted.out, bytecode=wanted.bytecode, compiler=wanted.compiler
        )
    if as_json:
        write_json(_told(folder))
    else:
        _show(folder, wanted.out)
        if wanted.bytecode is None and not folder.bytecode:
            console().print(f"{not_compiled(folder)} --compile-with names one.", style="yellow")


def not_compiled(folder: Folder) -> str:
    """What is to be known of a folder that was not compiled although nobody chose so."""
    return f"Not compiled, as no Python {folder.target.python} was found: each cold start compiles what it imports."


def _lock(python: str | None, *, upgrade: bool, as_json: bool) -> None:
    """Writes the lock of the project in the current directory. `python`: for a project that does not say itself."""
    root = Path.cwd()
    project = read_project(root)
    # A lock is for every processor, and for every Python that the project supports: the template is asked for the rest.
    target = read_target(root / TEMPLATE, python=python or project.oldest_python, architecture="arm64")
    with _busy(f"locking {len(project.dependencies)} dependencies and theirs"):
        path = write_lock(project, target, upgrade=upgrade)
    packages = [line.split(" ")[0] for line in path.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()]
    if as_json:
        write_json({"lock": str(path), "packages": packages})
    else:
        write_line(f"{LOCK}: {len(packages)} packages, each with the hashes of its files. Commit it.")


@contextmanager
def _busy(doing: str) -> Generator[None]:
    """Says on a terminal what is being done, as long as it takes."""
    if not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(f"{clean(doing)} …"):
        yield


def _told(folder: Folder) -> dict[str, object]:
    size = folder.size
    return {
        "folder": str(folder.path),
        "app": folder.app,
        "python": folder.target.python,
        "architecture": folder.target.architecture,
        "bytecode": folder.bytecode,
        "files": size.files,
        "unzipped": size.unzipped,
        "zipped": size.zipped,
        "limit": LIMIT,
        "parts": [asdict(part) for part in size.parts],
    }


def _show(folder: Folder, named: str) -> None:
    from rich.table import Table

    out = console()
    size = folder.size
    out.print(f"{clean(named)}: {clean(folder.app)} for {folder.target}, in {size.files:,} files", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False, show_footer=True)
    table.add_column("", "all of it", no_wrap=True, overflow="ellipsis")
    table.add_column("MB", f"{size.unzipped / MB:.1f}", justify="right", no_wrap=True)
    table.add_column("ZIPPED", f"{size.zipped / MB:.1f}", justify="right", no_wrap=True)
    shown, rest = size.parts[:SHOWN], size.parts[SHOWN:]
    rows = [(part.name, part.unzipped, part.zipped) for part in shown]
    if rest:
        rows.append((f"{len(rest)} more", sum(p.unzipped for p in rest), sum(p.zipped for p in rest)))
    for name, unzipped, zipped in rows:
        table.add_row(clean(name), f"{unzipped / MB:.1f}", f"{zipped / MB:.1f}")
    out.print(table)
    out.print(f"Lambda takes {LIMIT // MB} MB: {size.unzipped / LIMIT:.0%} are used.")
