"""What is packaged: a project's dependencies and application, read from pyproject.toml without running the project."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path
from typing import cast

from detent_state_machine.errors import ConfigurationError, InputError

from detent_infra.application import split_name
from detent_infra.ops.packaging.reading import read
from detent_infra.ops.packaging.target import OLDEST

OWN_PACKAGES = ("detent", "detent_functions", "detent_infra", "detent_state_machine")
"""What of detent goes into the folder."""
COMMAND_LINE_ONLY = frozenset({"rich", "typer"})
"""What of detent's own dependencies no function imports. An application that imports them names them itself."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Project:
    """`dependencies` are requirements, sorted, detent's own among them and detent itself not."""

    root: Path
    name: str | None
    oldest_python: str | None
    """The lowest of `requires-python`, as in `3.11`, and none that detent does not run on."""
    dependencies: tuple[str, ...]
    include: tuple[str, ...]
    """Packages and modules beside the application's own that belong to it."""


def read_project(root: Path) -> Project:
    """The project whose pyproject.toml lies there. Raises `ConfigurationError` that says what does not fit."""
    body = read(root / "pyproject.toml", tomllib.loads)
    if body is None:
        raise ConfigurationError(
            f"There is no pyproject.toml in {root.absolute()}.", advice="Run this in your project's root."
        )
    project = _table(body, "project")
    if not project:
        raise ConfigurationError(
            "pyproject.toml has no [project], so it names no dependencies.",
            advice="Write name, version and dependencies under [project].",
        )
    if "dependencies" in _texts(project, "dynamic"):
        raise ConfigurationError(
            "The dependencies in pyproject.toml are dynamic, so what to package is not written anywhere.",
            advice="Write them under [project] dependencies.",
        )
    # detent's own checkout names as its dependencies those of detent, the command line's too.
    own = [] if project.get("name") == "detent" else _texts(project, "dependencies")
    sources = _table(_table(_table(body, "tool"), "uv"), "sources")
    for each in own:
        _must_come_from_an_index(each, sources)
    wanted = {each for each in own if package_name(each) != "detent"}
    wanted |= {each for each in _requirements_of_detent() if package_name(each) not in COMMAND_LINE_ONLY}
    name = project.get("name")
    return Project(
        root,
        name if isinstance(name, str) else None,
        _lowest(project.get("requires-python")),
        tuple(sorted(wanted)),
        tuple(_texts(_table(_table(body, "tool"), "detent"), "include")),
    )


def modules_of(project: Project, app: str) -> dict[str, Path]:
    """Where the application's top-level packages and modules lie, by the name each has in the folder.

    Raises `ConfigurationError` for a name of another form, `InputError` if the app, or one of `include`, is not in the
    project.
    """
    module, _ = split_name(app, f"App {app!r}")
    found: dict[str, Path] = {}
    for name in dict.fromkeys((module.partition(".")[0], *project.include)):
        place = _place(project.root, name)
        if place is None:
            raise InputError(
                f"There is no package or module {name!r} in {project.root} or its src folder.",
                advice="Run this in the project's root; what --app and [tool.detent] include name must be there.",
            )
        found[place.name] = place
    top = _place(project.root, module.partition(".")[0])
    if top is not None and not _has_module(top.parent, module):
        raise InputError(
            f"There is no module {module!r} in {top.parent}.", advice=f"App {app!r} must name a module that exists."
        )
    return found


def _place(root: Path, name: str) -> Path | None:
    if not name.isidentifier():
        return None
    places = (base / shape for base in (root, root / "src") for shape in (name, f"{name}.py"))
    return next((place for place in places if place.is_dir() or (place.suffix == ".py" and place.is_file())), None)


def _has_module(base: Path, module: str) -> bool:
    path = base.joinpath(*module.split("."))
    return path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file()


def _requirements_of_detent() -> list[str]:
    return [each for each in requires("detent") or () if "extra ==" not in each]


def _must_come_from_an_index(requirement: str, sources: Mapping[str, object]) -> None:
    """Raises `ConfigurationError` for a dependency whose code is on this machine: a path, or an editable one.

    The lock is resolved from package indexes: it would have another package of that name, or none. detent is the one
    that runs this, wherever it was installed from.
    """
    if re.match(r"\s*detent\b", requirement):
        return
    local = re.search(r"@\s*(file:\S+|[./~]\S*)|^\s*((?:-e|--editable)\b.*|[./~].*)$", requirement)
    if local is not None:
        raise _on_this_machine(requirement.strip(), f"{local[1] or local[2]} is a path")
    name = package_name(requirement)
    for source, given in sources.items():
        elsewhere = [each for each in ("path", "workspace", "git", "url") if _names_source(given, each)]
        if package_name(source) == name and elsewhere:
            raise _on_this_machine(name, f"[tool.uv.sources] takes it from a {elsewhere[0]}")
    try:
        origin = distribution(name).read_text("direct_url.json")
    except PackageNotFoundError:
        return
    if origin is not None and '"dir_info"' in origin:
        raise _on_this_machine(name, f"it is installed from {json.loads(origin).get('url')}")


def _names_source(given: object, kind: str) -> bool:
    """uv takes one source, or a list of them for several platforms."""
    several = cast("list[object]", given) if isinstance(given, list) else [given]
    return any(isinstance(each, Mapping) and kind in each for each in several)


def _on_this_machine(dependency: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The dependency {dependency!r} cannot be packaged: {why}, and the lock takes packages from an index only.",
        advice="Publish it, or put its code beside the app and name it in `include` under [tool.detent].",
    )


def package_name(requirement: str) -> str:
    """A requirement's package, in the one spelling of its many."""
    match = _NAME.match(requirement.strip())
    if match is None:
        raise ConfigurationError(f"{requirement!r} under [project] dependencies names no package.")
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def _lowest(given: object) -> str | None:
    match = re.search(r"(?:>=|~=|==)\s*(3\.\d+)", given) if isinstance(given, str) else None
    if match is None:
        return None
    return "{}.{}".format(*max(OLDEST, tuple(map(int, match[1].split(".")))))


def _table(body: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = body.get(name, {})
    if not isinstance(found, Mapping):
        raise ConfigurationError(f"`{name}` in pyproject.toml is not a table.")
    return cast("Mapping[str, object]", found)


def _texts(body: Mapping[str, object], name: str) -> list[str]:
    found = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in cast("list[object]", found)):
        raise ConfigurationError(f"`{name}` in pyproject.toml is not a list of texts.")
    return cast("list[str]", found)
