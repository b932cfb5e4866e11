"""The documentation says only what is so.

Every ```python block of README.md and of the guides is run, in order: one that begins with `# name.py` is (appended
to) that file, the others share one module. Every `$ command` of a ```console block is run where the files are, and the
lines shown under it, but for their figures, must be in what it prints. ```sh blocks are only looked at.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
import typer
from detent.cli.commands import COMMANDS, command_line
from detent_state_machine.draw import transitions_mermaid
from typer.main import get_command

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for glob in ("*.md", "docs/**/*.md", "examples/**/*.md", "bench/*.md") for page in ROOT.glob(glob))
GUIDES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("start", "concepts", "triggers", "testing", "python")),
]
README_LINES = 130
PATIENCE = 60.0
NOON = f"noon{datetime.now(UTC).hour - 12:+d}"
"""A time zone in which no day ends between two commands: times of another day are shown with their date."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"^(?:\$ )?detent ([a-z]+(?:-[a-z]+)*)(.*)$", re.MULTILINE)
_MAKE = re.compile(r"^(?:\$ )?make ([a-z-]+)", re.MULTILINE)
_OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
_FIGURES = re.compile(r" ms\b| ago\b|[█▒]|…")
"""A shown line with one of these is about time, and differs at every run."""
_AT_WORK = re.compile(r" began(, attempt \d+)?$")
"""Printed if a look at the run happens to find the step at work."""


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{named(self.page)}: {self.text.splitlines()[0] if self.text else ''}"


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    found = (Block(page, language, text) for language, text in _BLOCK.findall(page.read_text()))
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _BLOCK.sub("", page.read_text())


def code(page: Path) -> str:
    """Everything on the page that is set as code, but for Python: each piece begins a line."""
    pieces = [text for language, text in _BLOCK.findall(page.read_text()) if language != "python"]
    return "\n".join([*pieces, *re.findall(r"`([^`\n]+)`", prose(page))])


# ---- code ---------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Somebody who does what a page says, in an empty directory."""

    folder: Path
    module: ModuleType

    def do(self, block: Block) -> None:
        if block.language == "console":
            for command, shown in conversations(block.text):
                said = self.run(command, shown)
                if block.page == ROOT / "README.md":
                    assert shows_all(shown, said), f"{command} prints\n{said}"
        elif file := _FILE.match(block.text):
            with (self.folder / file[1]).open("a") as out:
                out.write(block.text + "\n")
        else:
            exec(compile(block.text, named(block.page), "exec"), self.module.__dict__)

    def run(self, command: str, shown: list[str]) -> str:
        given = shlex.split(command)
        programs = {"detent": [sys.executable, "-m", "detent.cli"], "python": [sys.executable]}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("DETENT_", "PYTEST_"))}
        done = subprocess.run(
            [*programs[given[0]], *given[1:]],
            cwd=self.folder,
            env={**clean, "COLUMNS": "100", "PYTHONPATH": str(self.folder), "TZ": NOON},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # in the order in which a terminal shows both
            text=True,
            timeout=PATIENCE,
        )
        said = done.stdout
        run_failed = given[:2] == ["detent", "run"] and done.returncode == 1
        assert done.returncode == 0 or run_failed, f"{command}: exit code {done.returncode}\n{said}"
        printed = {without_figures(line) for line in said.splitlines()}
        for line in shown:
            if line.strip() and not _FIGURES.search(line):
                assert without_figures(line) in printed, f"{command} does not print {line!r}, but\n{said}"
        return said


def conversations(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that are shown under it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, shown


def without_figures(line: str) -> str:
    return " ".join(re.sub(r"\b[0-9a-v]{26}\b|\d+", "0", line).split())


def shows_all(shown: list[str], said: str) -> bool:
    """Whether these are all the lines that were printed, but for their figures, and for what `…` stands for."""
    pattern = "\n".join(".*" if line == "…" else re.escape(shape(line)) for line in shown if line.strip())
    printed = "\n".join(shape(line) for line in said.splitlines() if line.strip() and not _AT_WORK.search(line))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def shape(line: str) -> str:
    """The line without what differs between two runs of one program: times and bars too."""
    return without_figures(re.sub(r"[█▒·]+", "", re.sub(r"[\d.]+ (ms|s)\b", "0 ms", line)))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    module = ModuleType("page")
    sys.modules["page"] = module  # pydantic looks annotations up in the module of their class
    yield Reader(tmp_path, module)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "page").startswith((str(tmp_path), "page")):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_what_a_guide_shows_can_be_done_in_its_order(page: Path, reader: Reader) -> None:
    found = blocks(page, "python", "console")
    assert found
    for block in found:
        reader.do(block)
    for test in reader.folder.glob("test_*.py"):
        reader.run(f"python -m pytest -q -p no:cacheprovider {test.name}", [])


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_that_is_shown_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block.text, named(page), "exec")


def test_a_block_without_a_language_is_no_python() -> None:
    for page in GUIDES:
        for block in blocks(page, ""):
            assert not re.search(r"^(import|from|def|class|@\w+)\b", block.text, re.MULTILINE), str(block)


# ---- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_to_files_and_headings_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{named(page)} links to {link}"
        assert target.is_relative_to(ROOT), f"{named(page)} links out of the repository: {link}"
        if heading:
            assert heading in headings(target), f"{named(page)} links to {link}; it has {headings(target)}"


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    group = get_command(command_line(COMMANDS))
    assert isinstance(group, typer.core.TyperGroup)
    for name, rest in _COMMAND.findall(code(page)):
        assert name in group.commands, f"{named(page)}: `detent {name}` does not exist"
        known = {option for parameter in group.commands[name].params for option in parameter.opts} | {"--help"}
        used = set(_OPTION.findall(rest.partition("#")[0]))
        assert used <= known, f"{named(page)}: `detent {name}` has no {', '.join(sorted(used - known))}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(_MAKE.findall(code(page))) <= targets


# ---- what must agree ----------------------------------------------------------------------------------------


def test_the_drawn_transitions_are_those_of_the_table() -> None:
    (drawn,) = blocks(ROOT / "docs/internals/execution.md", "mermaid")
    assert drawn.text.strip() == transitions_mermaid().strip()


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text())}
    missing = [named(page) for page in ROOT.glob("docs/**/*.md") if page != index and page.resolve() not in linked]
    assert missing == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES
