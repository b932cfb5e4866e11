"""`detent package` and `sam build`: the same folder from the same lock, for the target and not for this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from detent_infra.ops.packaging import LOCK, Target
from detent_infra.ops.packaging.folder import MANIFEST
from detent_infra.ops.packaging.size import weigh

from tests.support.architecture import HERE
from tests.support.lambda_folders import APP, ROOT, Folders, contents, options, own, package, reached

MACHINES = {"x86_64": 0x3E, "arm64": 0xB7}
"""As ELF numbers them, in bytes 18 and 19 of a file. https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html"""
SAM = ROOT / ".venv-sam/bin/sam"
MB = 1024 * 1024
UNZIPPED, ZIPPED = 50 * MB, 28 * MB
"""Budgets of the example's folder, compiled. Of both, botocore's descriptions of AWS's services are two thirds."""
MODULES = 750
"""Budget: how many modules a worker with the example's application imports. On Python 3.13 it is about 590."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here(folders: Folders) -> Path:
    """The example's folder, compiled, for this machine and the Python that runs the tests."""
    python = own()
    return folders.orders(Target(python.version, HERE), python.path)


# ---- the same every time --------------------------------------------------------------------------------------


def test_a_second_folder_has_the_same_files_bytes_modes_and_times_as_reported(here: Path, tmp_path: Path) -> None:
    python = own()
    before = os.umask(0o077)
    try:
        out = tmp_path / "a place with spaces" / "lambda"
        said = package(ROOT, "--app", APP, *options(Target(python.version, HERE)), "--bytecode", "--out", str(out))
    finally:
        os.umask(before)
    made = list(contents(out))
    assert made == list(contents(here))
    assert (said["files"], said["unzipped"]) == (len(made), sum(len(content) for _, _, _, content in made))
    assert [path.name for path in out.parent.iterdir()] == ["lambda"]


def test_nothing_in_it_tells_where_or_by_whom_it_was_made(here: Path) -> None:
    traces = (str(ROOT).encode(), str(here.parent).encode(), str(Path.home() / ".cache").encode())
    for name, _, _, content in contents(here):
        assert not any(trace in content for trace in traces), name
        assert Path(name).name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
    assert not (here / "bin").exists()


def test_its_detent_is_that_of_the_wheel_but_for_what_no_function_needs(here: Path, tmp_path: Path) -> None:
    reached(["uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)], ROOT, PATH=_path())
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        inside = {name: packed.read(name) for name in packed.namelist() if not name.startswith("detent-")}
    left_out = ("detent/cli/", "detent_infra/ops/", "detent/scaffold/")
    expected = {name: content for name, content in inside.items() if not name.startswith(left_out)}
    packaged = {
        name: content
        for name, _, _, content in contents(here)
        if name.split("/")[0] in {each.split("/")[0] for each in inside} and not name.endswith(".pyc")
    }
    assert packaged == expected


# ---- for the target -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_every_library_in_it_is_for_the_processor_and_python_of_the_target(architecture: str, folders: Folders) -> None:
    folder = folders.orders(Target("3.13", architecture))
    libraries = list(folder.rglob("*.so"))
    assert any("pydantic_core" in path.name for path in libraries)
    for library in libraries:
        assert "cpython-313" in library.name
        assert int.from_bytes(library.read_bytes()[18:20], "little") == MACHINES[architecture]
    manifest = json.loads((folder / MANIFEST).read_text())
    assert (manifest["python"], manifest["architecture"]) == ("3.13", architecture)


def test_markers_of_dependencies_are_judged_for_the_target(tmp_path: Path) -> None:
    """pip judges them for the Python it runs in."""
    project = scaffold(tmp_path / "shop", "ancient; python_version < '3.13'", "modern; python_version >= '3.13'")
    for name in ("ancient", "modern"):
        wheel(tmp_path / "wheels", name)
    found = {"UV_FIND_LINKS": str(tmp_path / "wheels")}
    for python, held, missing in (("3.11", "ancient", "modern"), ("3.13", "modern", "ancient")):
        target = Target(python, "arm64")
        if python == "3.11":
            reached(detent("package", "--lock", "--python-version", python), project, **found)
        reached(detent("package", "--no-bytecode", *options(target)), project, **found)
        assert (project / f"build/lambda/{held}.py").exists()
        assert not (project / f"build/lambda/{missing}.py").exists()


def test_locking_again_changes_nothing(tmp_path: Path) -> None:
    """So that a lock differs only by what somebody has changed. No template has to say for which processor it is."""
    project = scaffold(tmp_path / "shop")
    shutil.copy(ROOT / LOCK, project)
    reached(detent("package", "--lock"), project)
    assert (project / LOCK).read_text() == (ROOT / LOCK).read_text()


def test_what_can_be_executed_in_the_application_still_can(tmp_path: Path) -> None:
    project = scaffold(tmp_path / "shop", module="shop/__init__.py")
    shutil.copy(ROOT / LOCK, project)
    (project / "shop/render").write_text("#!/bin/sh\n")
    (project / "shop/render").chmod(0o700)
    package(project, "--no-bytecode", *options(Target("3.13", "arm64")))
    modes = {name: mode for name, mode, _, _ in contents(project / "build/lambda")}
    assert (modes["shop/render"], modes["shop/__init__.py"]) == (0o755, 0o644)


# ---- by SAM ---------------------------------------------------------------------------------------------------


def test_sam_build_of_this_checkout_makes_the_same_folder_once(folders: Folders, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"  # a copy, so that what is built in this one stays
    shutil.copytree(ROOT / "examples", checkout / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("Makefile", "pyproject.toml", LOCK, "template.yaml", "samconfig.toml"):
        shutil.copy2(ROOT / name, checkout)
    os.utime(
        checkout / "pyproject.toml", (0, 0)
    )  # older than what is installed, so that make does not install the copy
    (checkout / ".venv").symlink_to(sys.prefix)
    built = sam_build(checkout, tmp_path / "built", ARGS="--no-bytecode")
    template = (built / "template.yaml").read_text()
    assert template.count("CodeUri: ") == 5
    assert template.count("CodeUri: Worker") == 1
    expected = list(contents(folders.orders(Target("3.13", "arm64"))))
    assert list(contents(built / "Worker")) == expected
    assert list(contents(checkout / "build/lambda")) == expected


def test_sam_build_of_a_project_makes_the_same_folder_as_detent_package(tmp_path: Path) -> None:
    """With what docs/deploy.md says a project has, and for the other processor."""
    project = scaffold(tmp_path / "a shop")
    shutil.copy(ROOT / LOCK, project)
    template = (ROOT / "template.yaml").read_text()
    (project / "template.yaml").write_text(template.replace("Architectures: [arm64]", "Architectures: [x86_64]"))
    (project / "samconfig.toml").write_text("version = 0.1\n[default.build.parameters]\nbuild_in_source = true\n")
    (project / "Makefile").write_text(makefile_of_the_docs())
    built = sam_build(project, project / ".aws-sam/build", PATH=_path())
    package(project, "--out", "again")
    assert list(contents(built / "Worker")) == list(contents(project / "again"))
    [library] = (built / "Worker/pydantic_core").glob("*.so")
    assert "x86_64" in library.name


def sam_build(project: Path, to: Path, **environment: str) -> Path:
    if not SAM.exists():
        assert not os.environ.get("CI"), f"{SAM} is missing"
        pytest.skip("`make sam` installs the SAM CLI")
    clean = {"AWS_DEFAULT_REGION": "us-east-1", "SAM_CLI_TELEMETRY": "0", "MAKEFLAGS": "", **environment}
    reached([str(SAM), "build", "--build-dir", str(to)], project, **clean)
    return to


def makefile_of_the_docs() -> str:
    text = (ROOT / "docs/deploy.md").read_text()
    return text.partition("```make\n")[2].partition("```")[0]


# ---- small, and quick to import -------------------------------------------------------------------------------


def test_it_is_within_its_budget(here: Path) -> None:
    size = weigh(here)
    assert size.unzipped <= UNZIPPED
    assert size.zipped <= ZIPPED


def test_a_worker_imports_from_the_folder_alone_and_nothing_it_does_not_need(here: Path) -> None:
    listed = (
        f"import sys; sys.path.insert(0, {str(here)!r}); import detent_functions.worker, examples.orders.app; "
        "print('\\n'.join(f'{n} {getattr(m, \"__file__\", None) or \"\"}' for n, m in sys.modules.items()))"
    )
    out = reached([str(own().path), "-I", "-S", "-B", "-c", listed], here)
    files = dict(line.partition(" ")[::2] for line in out.splitlines())
    tops = {name.partition(".")[0] for name in files}
    assert tops.isdisjoint({"typer", "click", "rich", "pygments", "moto", "pytest", "sqlite3", "yaml"})
    assert {"detent", "boto3", "pydantic"} <= tops
    assert all("site-packages" not in file and str(ROOT) not in file.removeprefix(str(here)) for file in files.values())
    assert len(files) <= MODULES


def test_what_only_the_command_line_needs_is_not_in_it(here: Path) -> None:
    tops = {path.name for path in here.iterdir()}
    assert tops.isdisjoint({"typer", "click", "rich", "pygments", "markdown_it"})
    assert not (here / "detent/cli").exists()


def test_every_module_is_compiled_for_lambda_s_path(here: Path) -> None:
    code = (here / "detent/__pycache__").glob("app.*.pyc")
    content = next(code).read_bytes()
    assert content[4:8] == b"\x01\x00\x00\x00"  # by hash, and not looked at again: PEP 552
    assert b"/var/task/detent/app.py" in content


# ---- what is wrong --------------------------------------------------------------------------------------------


def test_a_dependency_that_exists_as_source_only_is_refused_by_its_name(tmp_path: Path) -> None:
    project = scaffold(tmp_path / "shop")
    (tmp_path / "files").mkdir()
    shutil.make_archive(str(tmp_path / "files/sourceful-1.0"), "gztar", tmp_path, "shop")
    lines = (ROOT / LOCK).read_text().splitlines()[:2]
    pin = "sourceful==1.0 --hash=sha256:" + "0" * 64
    (project / LOCK).write_text("\n".join([*lines, pin]) + "\n")
    refused(project, "sourceful", UV_FIND_LINKS=str(tmp_path / "files"), UV_NO_INDEX="1")


def test_a_file_that_is_not_what_was_locked_is_refused(tmp_path: Path) -> None:
    project = scaffold(tmp_path / "shop")
    wheel(tmp_path / "files", "ancient")
    lines = (ROOT / LOCK).read_text().splitlines()[:2]
    pin = "ancient==1.0 --hash=sha256:" + "0" * 64
    (project / LOCK).write_text("\n".join([*lines, pin]) + "\n")
    refused(project, "ancient", "Hash mismatch", UV_FIND_LINKS=str(tmp_path / "files"), UV_NO_INDEX="1")


def refused(project: Path, *words: str, **environment: str) -> None:
    """One line on standard error has these words, and there is no folder nor a part of one."""
    done = subprocess.run(
        detent("package", *options(Target("3.13", "arm64"))),
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert not [*(project / "build").glob("*")]


def test_a_module_with_the_name_of_a_dependency_s_package_is_refused(tmp_path: Path) -> None:
    project = scaffold(tmp_path / "shop", module="jmespath.py")
    shutil.copy(ROOT / LOCK, project)
    refused(project, "jmespath.py has the name of a module of the dependency 'jmespath'", "Rename it")


# ---- projects -------------------------------------------------------------------------------------------------


def scaffold(project: Path, *dependencies: str, module: str = "shop.py") -> Path:
    """A project of somebody's own, `shop:app` unless its module is another, without a lock."""
    (project / module).parent.mkdir(parents=True)
    (project / module).write_text('from detent import App\n\napp = App("shop")\n')
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
        f"dependencies = {json.dumps(['detent', *dependencies])}\n"
        f'[tool.detent]\napp = "{module.removesuffix(".py").removesuffix("/__init__")}:app"\n'
    )
    return project


def wheel(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as packed:
        packed.writestr(f"{name}.py", "")
        packed.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        packed.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr(f"{name}-1.0.dist-info/RECORD", "")


def detent(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("detent")), *arguments]


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
