"""What `detent package` is told and refuses, none of which needs a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from detent_infra.ops.packaging import LOCK, Target, read_project, read_target
from detent_infra.ops.packaging.imports import hiding, must_be_included, must_not_hide
from detent_infra.ops.packaging.origin import requirement
from detent_infra.ops.packaging.project import Project as Packaged
from detent_state_machine.errors import ConfigurationError, InputError

from tests.support.cli_project import Project

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


def packaged(root: Path) -> Packaged:
    return Packaged(root, "shop", None, (), ())


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
        (PYPROJECT % ("dependencies = [7]", ""), "not a list of texts"),
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
    shop.call("package", "--python-version", "3.19", "--compile-with", "/bin/sh").refused("/bin/sh is not Python 3.19")
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


# ---- what works here and would fail in Lambda -----------------------------------------------------------------


@pytest.mark.parametrize("app", ["uuid:app", "queue.workflows:app", "typing:app"])
def test_an_app_with_the_name_of_python_s_own_module_is_refused(app: str, shop: Project) -> None:
    name = app.partition(":")[0].partition(".")[0]
    (shop.path / name).mkdir()
    (shop.path / name / "__init__.py").write_text("")
    (shop.path / name / "workflows.py").write_text("")
    shop.call("package", "--app", app).refused(repr(name), "hides", "Rename")
    left_alone(shop)


@pytest.mark.parametrize("place", ["queue.py", "types.py", "src/queue.py", "email/__init__.py", "logging/__init__.py"])
def test_a_module_beside_the_app_that_hides_python_s_own_is_refused(place: str, shop: Project) -> None:
    path = shop.path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    shop.call("package").refused("hides", "Rename", place.removesuffix("/__init__.py"))
    left_alone(shop)


def test_a_directory_that_hides_nothing_is_no_fault(tmp_path: Path) -> None:
    for name in ("site", "email", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("")
    must_not_hide(packaged(tmp_path), {}, ["pydantic"])
    assert hiding(tmp_path) == []


@pytest.mark.parametrize("name", ["pydantic", "boto3", "detent", "detent_infra"])
def test_a_module_beside_the_app_that_hides_a_dependency_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("")
    with pytest.raises(InputError, match=rf"{name}\.py has the name of a module of the dependency"):
        must_not_hide(packaged(tmp_path), {}, ["pydantic", "boto3"])


@pytest.mark.parametrize(
    "source",
    [
        "import pricing",
        "import pricing.rules as rules",
        "from pricing import rules",
        "def f():\n    from pricing.rules import VAT\n",
        "import importlib\nimportlib.import_module('pricing.rules')",
        "try:\n    import pricing\nfinally:\n    pass\n",
        "if True:\n    import pricing",
    ],
)
@pytest.mark.parametrize("sibling", ["pricing.py", "pricing/__init__.py", "pricing/rules.py", "src/pricing.py"])
def test_a_sibling_that_include_forgot_is_told_with_the_line_that_imports_it(
    source: str, sibling: str, tmp_path: Path
) -> None:
    (tmp_path / sibling).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / sibling).write_text("")
    app = tmp_path / "shop.py"
    app.write_text(source)
    with pytest.raises(InputError, match=r"shop\.py, line \d, imports 'pricing', .*include = \[\"pricing\"\]"):
        must_be_included(packaged(tmp_path), {"shop.py": app})
    name = sibling.removeprefix("src/").partition("/")[0]
    place = tmp_path / "src" / name if sibling.startswith("src/") else tmp_path / name
    must_be_included(packaged(tmp_path), {"shop.py": app, place.name: place})


@pytest.mark.parametrize(
    "source",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pricing\n",
        "try:\n    import pricing\nexcept ImportError:\n    pricing = None\n",
        "from . import pricing",
        "import json, pydantic",
        "x = 'import pricing'",
        "type X[T] = list[T]  # a newer Python's, which this one cannot read",
    ],
)
def test_an_import_that_lambda_can_do_without_needs_no_include(source: str, tmp_path: Path) -> None:
    (tmp_path / "pricing.py").write_text("")
    app = tmp_path / "shop"
    app.mkdir()
    (app / "__init__.py").write_text(source)
    (app / "test_shop.py").write_text("import pricing")
    must_be_included(packaged(tmp_path), {"shop": app})


def test_a_forgotten_sibling_is_told_before_anything_is_made(shop: Project) -> None:
    (shop.path / "pricing.py").write_text("VAT = 19\n")
    (shop.path / "shop.py").write_text(f"import pricing\n{(shop.path / 'shop.py').read_text()}")
    shop.call("package").refused("shop.py, line 1, imports 'pricing'", "include")
    left_alone(shop)


@pytest.mark.parametrize(
    ("dependency", "more", "said"),
    [
        ("billing @ file:///home/me/billing", "", "file:///home/me/billing is a path"),
        ("billing @ ../billing", "", "../billing is a path"),
        ("-e ../billing", "", "is a path"),
        ("./billing", "", "is a path"),
        ("billing>=1", "[tool.uv.sources]\nbilling = { path = '../billing', editable = true }", "takes it from a path"),
        ("Billing", "[tool.uv.sources]\nbilling = { workspace = true }", "takes it from a workspace"),
        ("billing", "[tool.uv.sources]\nbilling = [{ git = 'https://x.test/b.git' }]", "takes it from a git"),
    ],
)
def test_a_dependency_whose_code_is_on_this_machine_is_refused(
    dependency: str, more: str, said: str, shop: Project
) -> None:
    body = PYPROJECT % (f'dependencies = ["detent", "{dependency}"]', f"\n{more}\n")
    (shop.path / "pyproject.toml").write_text(body)
    for command in (["package"], ["package", "--lock"]):
        shop.call(*command).refused("illing", said, "include")
    left_alone(shop)


def test_a_dependency_that_is_installed_from_a_path_is_refused(shop: Project) -> None:
    """What is tested here would not be what is deployed."""
    about = shop.path / "billing-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: billing\nVersion: 1\n")
    origin = {"url": "file:///home/me/billing", "dir_info": {"editable": True}}
    (about / "direct_url.json").write_text(json.dumps(origin))
    sys.path.insert(0, str(shop.path))
    (shop.path / "pyproject.toml").write_text(PYPROJECT % ('dependencies = ["detent", "billing"]', ""))
    shop.call("package", "--lock").refused("'billing'", "installed from file:///home/me/billing")


def test_detent_itself_may_come_from_a_path(shop: Project) -> None:
    (shop.path / "pyproject.toml").write_text(PYPROJECT % ('dependencies = ["detent @ file:///checkout"]', ""))
    assert not [each for each in read_project(shop.path).dependencies if "checkout" in each]
