"""What `detent package` is told and refuses, none of which needs a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from detent_infra.ops.packaging import LOCK, Target, read_project, read_target
from detent_infra.ops.packaging.origin import requirement
from detent_state_machine.errors import ConfigurationError

from tests.e2e.cli_project import Project

ROOT = Path(__file__).parents[2]
FUNCTION = "{ Type: AWS::Serverless::Function, Properties: { Runtime: %s, Architectures: %s } }"
PYPROJECT = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
%s

[tool.detent]
app = "shop:app"
%s
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    """A project that could be packaged."""
    project = Project(tmp_path, monkeypatch, capsys)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT % ('dependencies = ["detent"]', ""))
    (tmp_path / LOCK).write_bytes((ROOT / LOCK).read_bytes())
    (tmp_path / "template.yaml").write_bytes((ROOT / "template.yaml").read_bytes())
    return project


def left_alone(shop: Project) -> None:
    assert not (shop.path / "build").exists()


# ---- the target -----------------------------------------------------------------------------------------------


def test_the_template_says_what_to_package_for() -> None:
    assert read_target(ROOT / "template.yaml") == Target("3.13", "arm64")
    assert read_target(ROOT / "template.yaml", architecture="x86_64") == Target("3.13", "x86_64")


def test_without_a_template_both_must_be_said(tmp_path: Path) -> None:
    assert read_target(tmp_path / "no.yaml", python="3.12", architecture="arm64") == Target("3.12", "arm64")
    with pytest.raises(ConfigurationError, match=r"no\.yaml"):
        read_target(tmp_path / "no.yaml", python="3.12")


def test_a_function_without_an_architecture_is_lambda_s_default(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text("Resources: { F: { Type: AWS::Serverless::Function, Properties: { Runtime: python3.12 } } }")
    assert read_target(template) == Target("3.12", "x86_64")


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        ([("python3.13", "[arm64]"), ("python3.12", "[arm64]")], "Python 3.12 on arm64 and Python 3.13 on arm64"),
        ([("nodejs22.x", "[arm64]")], "no function with a Python runtime"),
        ([("python3.13", "[!Ref Processor]")], "not written out"),
        ([("python3.13", "[arm64, x86_64]")], "not written out"),
        ([("python3.9", "[arm64]")], "no packaging for Python '3.9'"),
        ([("python3.13", "[sparc]")], "no architecture 'sparc'"),
    ],
)
def test_functions_that_one_folder_cannot_serve_are_refused(
    functions: list[tuple[str, str]], said: str, tmp_path: Path
) -> None:
    template = tmp_path / "template.yaml"
    lines = [f"  F{n}: {FUNCTION % function}" for n, function in enumerate(functions)]
    template.write_text("\n".join(["Resources:", *lines]))
    with pytest.raises(ConfigurationError, match=said):
        read_target(template)


def test_a_template_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text("a: [")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_target(tmp_path / "template.yaml")


# ---- the project ----------------------------------------------------------------------------------------------


def test_a_project_depends_on_what_detent_s_functions_need_and_on_its_own(shop: Project) -> None:
    own = 'dependencies = ["detent[deploy]>=0.1", "rich", "httpx>=0.27"]'
    (shop.path / "pyproject.toml").write_text(PYPROJECT % (own, 'include = ["billing"]'))
    project = read_project(shop.path)
    names = {each.split(">")[0].split("<")[0] for each in project.dependencies}
    assert names >= {"aws-lambda-powertools", "boto3", "httpx", "pydantic", "rich"}
    assert names.isdisjoint({"detent", "typer"})
    assert project.include == ("billing",)


@pytest.mark.parametrize(
    ("pyproject", "said"),
    [
        ("[tool.detent]\napp = 'shop:app'\n", "no [project]"),
        (PYPROJECT % ('dynamic = ["dependencies"]', ""), "dynamic"),
        (PYPROJECT % ("dependencies = [7]", ""), "no list of texts"),
        (PYPROJECT % ('dependencies = ["=1"]', ""), "names no package"),
        (PYPROJECT % ('dependencies = ["detent", "httpx"]', ""), "other dependencies"),
        (PYPROJECT % ('dependencies = ["detent"]', 'include = ["billing"]'), "'billing'"),
        (PYPROJECT % ('dependencies = ["detent"]', 'include = ["../etc"]'), "'../etc'"),
        ("[project", "cannot be read"),
    ],
)
def test_a_pyproject_that_does_not_fit_is_refused(pyproject: str, said: str, shop: Project) -> None:
    (shop.path / "pyproject.toml").write_text(pyproject)
    shop.call("package").refused(said)
    left_alone(shop)


def test_a_python_that_the_project_does_not_support_is_refused(shop: Project) -> None:
    pyproject = (PYPROJECT % ('dependencies = ["detent"]', "")).replace("3.11", "3.13")
    (shop.path / "pyproject.toml").write_text(pyproject)
    shop.call("package", "--python-version", "3.12").refused("requires Python 3.13", "3.12")
    left_alone(shop)


def test_a_project_that_supports_older_pythons_than_detent_supports_those_that_detent_does(shop: Project) -> None:
    for given, oldest in ((">=3.9", "3.11"), (">=3.11", "3.11"), (">=3.12", "3.12")):
        pyproject = (PYPROJECT % ('dependencies = ["detent"]', "")).replace(">=3.11", given)
        (shop.path / "pyproject.toml").write_text(pyproject)
        assert read_project(shop.path).oldest_python == oldest


def test_without_a_lock_the_command_that_makes_it_is_named(shop: Project) -> None:
    (shop.path / LOCK).unlink()
    shop.call("package").refused(LOCK, "detent package --lock")
    left_alone(shop)


@pytest.mark.parametrize("app", ["shop", "moved:app", "shop.workflows:app", "../shop:app", "shop:app:app"])
def test_an_app_that_is_not_in_the_project_is_refused(app: str, shop: Project) -> None:
    shop.call("package", "--app", app).refused(app.partition(":")[0])
    left_alone(shop)


def test_a_folder_that_somebody_else_made_is_not_replaced(shop: Project) -> None:
    for place in (".", "shop.py"):
        shop.call("package", "--out", place).refused("not replaced")
    assert (shop.path / "shop.py").exists()


@pytest.mark.parametrize("place", ["shop.py/lambda", "/dev/null/lambda", "/proc/lambda"])
def test_a_folder_that_cannot_be_made_is_refused(place: str, shop: Project) -> None:
    shop.call("package", "--no-bytecode", "--out", place).refused(place, "--out")
    assert (shop.path / "shop.py").is_file()


def test_a_folder_inside_of_what_goes_into_it_is_refused(shop: Project) -> None:
    """The next one would hold this one."""
    (shop.path / "billing").mkdir()
    (shop.path / "billing/__init__.py").touch()
    (shop.path / "pyproject.toml").write_text(PYPROJECT % ('dependencies = ["detent"]', 'include = ["billing"]'))
    shop.call("package", "--out", "billing/build/lambda").refused("inside of 'billing'")
    assert not (shop.path / "billing/build").exists()


def test_options_that_would_do_nothing_are_refused(shop: Project) -> None:
    shop.call("package", "--upgrade").refused("detent package --lock --upgrade")
    for option in (("--out", "build"), ("--architecture", "arm64"), ("--bytecode",), ("--no-bytecode",)):
        shop.call("package", "--lock", *option).refused(f"{option[0]} is about the folder", f"Leave {option[0]} out")
    shop.call("package", "--lock", "--compile-with", "python3").refused("--compile-with is about the folder")
    shop.call("doctor", "--stack", "shop", "--app", "shop:app").refused("--stack")
    shop.call("doctor", "--stack", "shop", "--url", "memory://").refused("--stack")
    left_alone(shop)


def test_a_compiler_of_another_version_is_refused(shop: Project) -> None:
    shop.call("package", "--python-version", "3.19", "--compile-with", "/bin/sh").refused("/bin/sh is no Python 3.19")
    shop.call("package", "--python-version", "3.19", "--bytecode").refused("--compile-with", "--no-bytecode")
    left_alone(shop)


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        (None, "detent[deploy]"),
        ('{"url": "file:///a%20b/detent", "dir_info": {"editable": true}}', "detent[deploy] @ file:///a%20b/detent"),
        ('{"url": "file:///x/detent-0.1.0.whl", "archive_info": {}}', "detent[deploy] @ file:///x/detent-0.1.0.whl"),
        (
            '{"url": "https://example.com/detent", "vcs_info": {"vcs": "git", "commit_id": "4edbd81"}}',
            "detent[deploy] @ git+https://example.com/detent@4edbd81",
        ),
    ],
)
def test_detent_is_installed_again_from_where_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: str | None, found: str
) -> None:
    installed = tmp_path / "detent-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.4\nName: detent\nVersion: 0.1.0\n")
    if origin is not None:
        (installed / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(tmp_path)
    assert requirement() == found


def test_without_uv_its_installation_is_named(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(shop.path / "bin/python"))
    monkeypatch.setenv("PATH", str(shop.path))
    shop.call("package", "--no-bytecode").refused("uv", f"pip install '{requirement()}'")
    assert not list((shop.path / "build").iterdir())
