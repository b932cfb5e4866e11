"""Which app and which backend a command is about.

app      --app, else DETENT_APP, else `[tool.detent] app` in the pyproject.toml of the current directory
backend  --url, else the app's, else DETENT_URL, else the default file under the current directory
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detent_infra.connect import is_there, sqlite_file
from detent_state_machine.errors import ConfigurationError, UnknownRun, UnknownWorkflow
from detent_state_machine.suggest import did_you_mean

from detent.settings import DEFAULT_URL, settings

if TYPE_CHECKING:  # a command that only reads loads no app, and so no engine
    from detent.app import App
    from detent.client import Client

LAST = "last"
"""Stands for the newest run wherever a run id is taken."""


@dataclass(frozen=True, slots=True)
class Options:
    """--app and --url as given."""

    app: str | None = None
    url: str | None = None

    def repeated(self) -> str:
        """The options again, for a command that is suggested: with a space before, or nothing."""
        given = ((name, value) for name, value in (("--app", self.app), ("--url", self.url)) if value)
        return "".join(f" {name} {_quoted(value)}" for name, value in given)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A value and where it comes from."""

    value: str
    source: str


# ---- the app --------------------------------------------------------------------------------------------------


def app_name(options: Options) -> Chosen | None:
    """Which app is meant, if one is configured."""
    if options.app:
        return Chosen(options.app, "--app")
    if name := settings().app:
        return Chosen(name, "DETENT_APP")
    if name := _in_pyproject(Path("pyproject.toml")):
        return Chosen(name, "pyproject.toml")
    return None


def find_app(options: Options) -> App | None:
    """The configured app, on the backend of --url if that is given. None if none is configured."""
    chosen = app_name(options)
    if chosen is None:
        return None
    app = _load(chosen)
    if options.url:
        app.url = options.url
    return app


def load_app(options: Options) -> App:
    """`find_app`, where there must be one that declares workflows. Raises `ConfigurationError`, `DefinitionError`."""
    app = find_app(options)
    if app is None:
        raise ConfigurationError(
            "No app is named.",
            advice='Pass --app module:attribute, set DETENT_APP, or write `app = "module:attribute"` under '
            "[tool.detent] in pyproject.toml.",
        )
    if not app.definitions():
        raise ConfigurationError(
            f"App {app.name!r} declares no workflow.", advice="Import the modules that declare them where the app is."
        )
    return app


def _in_pyproject(path: Path) -> str | None:
    try:
        parsed: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.", advice="Fix it, or pass --app.") from error
    match parsed:
        case {"tool": {"detent": {"app": str(name)}}}:
            return name
        case {"tool": {"detent": {"app": object()}}}:
            from detent_infra.application import FORM  # imports more than a page of help needs

            raise ConfigurationError(f"`app` under [tool.detent] in {path} is not text.", advice=FORM)
        case _:
            return None


def _load(chosen: Chosen) -> App:
    from detent.app import App
    from detent.cli.app_import import import_app

    said = f"App {chosen.value!r} (from {chosen.source})"
    app = import_app(chosen.value, said)
    if not isinstance(app, App):
        raise ConfigurationError(f"{said} is a {type(app).__name__}, not an App.", advice="Name the App itself.")
    return app


# ---- the backend ----------------------------------------------------------------------------------------------


def place(options: Options) -> Chosen:
    """The backend's URL. Imports the app unless --url is given."""
    if options.url:
        return Chosen(options.url, "--url")
    app = find_app(options)
    if app is not None:
        return Chosen(app.url, f"app {app.name!r}")
    if settings().url != DEFAULT_URL:
        return Chosen(settings().url, "DETENT_URL")
    return Chosen(DEFAULT_URL, "default")


def must_be_shared(url: str) -> None:
    """Raises `ConfigurationError` for a backend that no other process can see."""
    if url.startswith("memory://"):
        raise ConfigurationError(
            "memory:// lives inside one process, so this command would find nothing there.",
            advice=f"Pass --url {DEFAULT_URL}; or work in one process with `detent run … --here`.",
        )


@asynccontextmanager
async def opened(options: Options) -> AsyncGenerator[Client, None]:
    """A client on a backend that is there already, closed in the end. Raises `ConfigurationError`."""
    url = place(options).value
    must_be_shared(url)
    file = sqlite_file(url)
    if file is not None and not is_there(file):
        raise ConfigurationError(
            f"There is no database {file.absolute()} yet.",
            advice="A worker or the first run makes it; or look elsewhere with --app, --url or another directory.",
        )
    from detent.client import Client

    client = Client(url)
    backend = client.lifecycle.backend
    try:
        yield client
    finally:
        backend.close()


@asynccontextmanager
async def client_of(options: Options, app: App | None, *, here: bool = False) -> AsyncGenerator[Client, None]:
    """A client on the app's backend, which is made if need be; without an app on one that is there. Closed in the end.

    `here`: no other process needs to see it.
    """
    if app is None:
        async with opened(options) as client:
            yield client
        return
    if not here:
        must_be_shared(app.url)
    backend = app.backend
    try:
        yield app.client
    finally:
        backend.close()


async def run_id_of(client: Client, given: str) -> str:
    """The run id meant by an argument: whole, a unique part, or `last`. Raises `UnknownRun`, `InputError`."""
    if given != LAST:
        return await client.lifecycle.whole_id(given)
    newest = await client.lifecycle.list(limit=1)
    if not newest:
        must_be_whole(client)
        raise UnknownRun(f"There is no last run: {client.url} has none.", advice="Start one with `detent run`.")
    return newest[0].run_id


def must_be_whole(client: Client) -> None:
    """For a list that is empty: raises `CorruptRecord` if that is because the SQLite file is damaged.

    An index of damaged pages lists nothing, and raises nothing.
    """
    file = sqlite_file(client.url)
    if file is not None:
        from detent_infra.sqlite import integrity

        integrity.check(file.absolute())


def unknown_workflow(name: str, known: Iterable[str], where: str) -> UnknownWorkflow:
    """The error for a workflow that is not there, which says what is."""
    names = sorted(known)
    listed = (", ".join(names[:10]) or "none at all") + (", …" if len(names) > 10 else "")
    advice = did_you_mean(name, names, f"There {'is' if len(names) == 1 else 'are'} {listed}.")
    return UnknownWorkflow(f"{where} has no workflow {name!r}.", advice=advice)


def _quoted(value: str) -> str:
    import shlex

    return value if os.name == "nt" else shlex.quote(value)
