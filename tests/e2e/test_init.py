"""`detent init`: the project it makes passes its own tests, runs, and is what the linters and type checkers like."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from platform import machine
from typing import Any

import pytest
from detent import scaffold
from detent.cli import main
from detent_infra.ops.packaging.origin import requirement

from tests.support.cli_project import Result, command
from tests.support.lambda_folders import reached

ROOT = Path(__file__).parents[2]
COMMANDS = 3


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    capsys.readouterr()
    code = main(arguments)
    said = capsys.readouterr()
    return Result(code, said.out, said.err)


def run(*program: str, cwd: Path) -> str:
    """What the program prints, once it has succeeded."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DETENT_", "PYTEST_", "PYTHON"))}
    done = subprocess.run(program, cwd=cwd, env=kept, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the real command, in a path with spaces and in another alphabet."""
    folder = tmp_path_factory.mktemp("der Ort π")
    run(*command("init", "my shop"), cwd=folder)
    return folder / "my shop"


@pytest.mark.slow
def test_a_new_project_passes_its_own_tests_and_runs(project: Path) -> None:
    assert "5 passed" in run("make", "test", f"PYTHON={sys.executable}", cwd=project)
    said = run(*command("run", "refunds", "@refund.json", "--here"), cwd=project)
    assert json.loads(said).startswith("Order A-17: 25.00 are on their way")
    assert json.loads(run(*command("show", "last", "--json"), cwd=project))["status"] == "COMPLETED"


def test_an_environment_that_lacks_something_is_told_how_to_be_made_and_left_as_it_is(project: Path) -> None:
    bare = f"{sys.executable} -I -S"  # a Python without what is installed
    done = subprocess.run(["make", "test", f"PYTHON={bare}"], cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    told, _ = done.stderr.splitlines()  # and make's own line
    venv = f"python3 -m venv .venv && . .venv/bin/activate && pip install '{requirement()}' pytest"
    assert told == f"{bare} has no detent or no pytest: {venv}"


@pytest.mark.slow
def test_a_new_project_is_as_strict_as_detent_is(project: Path) -> None:
    run(
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,I,UP,B",
        "--line-length",
        "120",
        ".",
        cwd=project,
    )
    run(sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "120", "--check", ".", cwd=project)
    run(
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(ROOT / ".mypy_cache/init"),
        "--no-error-summary",
        "my_shop",
        "tests",
        cwd=project,
    )


def test_its_template_is_the_platforms_and_serves_its_app(project: Path) -> None:
    run(str(Path(sys.executable).with_name("cfn-lint")), "template.yaml", cwd=project)
    head, *rest = (project / "template.yaml").read_text().splitlines()
    assert head.startswith("# The platform of detent")
    platform = (ROOT / "template.yaml").read_text().splitlines()
    changed = [(old, new) for old, new in zip(platform, rest, strict=True) if old != new]
    assert changed == [("    Default: examples.orders.app:app", "    Default: my_shop.app:app")]


def test_the_wheel_carries_the_template_of_the_repository() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    [(source, place)] = wheel["force-include"].items()
    assert (ROOT / source) == scaffold._OF_CHECKOUT
    assert (ROOT / "sdk/python" / place) == scaffold._SHIPPED


def sam(*arguments: str, project: Path) -> None:
    program = ROOT / ".venv-sam/bin/sam"
    if not program.exists():
        if os.environ.get("CI"):
            pytest.fail("make sam")
        pytest.skip(f"{program} is missing: `make sam` installs it")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "MAKEFLAGS": "", "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1"}
    reached([str(program), *arguments], project, **environment)


@pytest.mark.slow
def test_sam_accepts_it(project: Path) -> None:
    sam("validate", "--lint", project=project)


@pytest.mark.slow
def test_sam_builds_it_as_it_is(project: Path, tmp_path: Path) -> None:
    made = tmp_path / "my shop"  # a copy: the other tests look at a project that was not built
    shutil.copytree(project, made, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    sam("build", project=made)
    built = made / ".aws-sam/build"
    assert (built / "template.yaml").read_text().count("CodeUri: ") == 5
    assert (built / "Worker/my_shop/app.py").read_bytes() == (made / "my_shop/app.py").read_bytes()
    assert (built / "Worker/detent_functions/worker.py").is_file()
    assert (made / "requirements.lock").is_file()


def test_its_makefile_and_samconfig_name_what_is_there(project: Path) -> None:
    config: dict[str, Any] = tomllib.loads((project / "samconfig.toml").read_text())
    assert config["default"]["global"]["parameters"]["stack_name"] == "my-shop"
    assert tomllib.loads((project / "pyproject.toml").read_text())["tool"]["detent"]["app"] == "my_shop.app:app"
    assert "build-Worker" in (project / "Makefile").read_text()
    left = [path for path, text in everything(project).items() if b"@package@" in text or b"@stack@" in text]
    assert left == []


def test_its_readme_names_files_that_are_there_and_links_nowhere(project: Path) -> None:
    """A page that does not exist yet, as that of a package before its release, is not a place to send a newcomer to."""
    readme = (project / "README.md").read_text()
    assert "://" not in readme.replace("aws://", "")
    assert "](" not in readme
    named = re.findall(r"`([\w/]+\.\w+)`|@([\w/]+\.\w+)", readme)
    assert len(named) >= 4
    for path in {one or other for one, other in named}:
        assert (project / path).is_file()


def test_it_says_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    said = called(capsys, "init", "my shop").out.splitlines()
    next_ones = said[said.index("Next:") + 1 :]
    assert len(next_ones) == COMMANDS
    assert next_ones[0] == "  cd 'my shop' && make test"
    shutil.rmtree("my shop")
    told: Any = called(capsys, "init", "my shop", "--json").json
    assert (told["package"], told["stack"], told["app"]) == ("my_shop", "my-shop", "my_shop.app:app")
    assert all((Path(told["folder"]) / path).is_file() for path in told["files"])


@pytest.mark.parametrize("there", ["Makefile", "notes.txt", "my_shop/app.py"])
def test_a_directory_with_something_in_it_is_left_as_it_is(there: str, tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "my-shop"
    (folder / there).parent.mkdir(parents=True)
    (folder / there).write_text("mine")
    before = everything(tmp_path)
    called(capsys, "init", str(folder)).refused(there.partition("/")[0], "Nothing was written")
    assert everything(tmp_path) == before


def test_a_repository_without_files_may_become_a_project(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "shop"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git/config").write_text("mine")
    assert called(capsys, "init", str(folder)).code == 0
    assert (folder / ".git/config").read_text() == "mine"
    assert (folder / "shop/app.py").is_file()


def test_what_cannot_be_written_whole_is_taken_back(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a file").write_text("mine")
    called(capsys, "init", str(tmp_path / "a file"), "--name", "shop").refused("is a file")
    called(capsys, "init", str(tmp_path / "a file/shop")).refused("cannot be written")
    assert everything(tmp_path) == {str(tmp_path / "a file"): b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("name", ["3x", "class", "json", "tests", "detent", "Größe", "a/b", "", "x" * 80, "sh$op"])
def test_a_name_that_no_package_can_have_is_refused(name: str, tmp_path: Path, capsys: Any) -> None:
    called(capsys, "init", str(tmp_path / "new"), "--name", name).refused("is not a name for a project")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "package"), [("My.Shop", "my_shop"), ("my--shop", "my_shop"), ("a b  c", "a_b_c")])
def test_a_name_is_spelled_as_packages_and_stacks_are(given: str, package: str) -> None:
    names = scaffold.names_of(given)
    assert names.package == package
    assert names.stack == names.project == package.replace("_", "-")


def test_the_template_alone_can_be_had_again(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(project)
    before = everything(project)
    assert called(capsys, "init", "--template").out == (project / "template.yaml").read_text()
    assert everything(project) == before
    monkeypatch.chdir(project.parent)
    called(capsys, "init", "--template").refused("No app is named")


def test_a_project_for_this_machine_has_its_python_and_its_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert called(capsys, "init", "refunds", "--for-this-machine").code == 0
    template = (tmp_path / "refunds/template.yaml").read_text()
    assert set(re.findall(r"Runtime: (\S+)", template)) == {f"python{sys.version_info[0]}.{sys.version_info[1]}"}
    processor = {"aarch64": "arm64", "arm64": "arm64"}.get(machine().lower(), "x86_64")
    assert set(re.findall(r"Architectures: \[(\w+)\]", template)) == {processor}
