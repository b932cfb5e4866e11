"""What the tests of deployed stacks share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from detent.cli import main

from tests.service.project import Project
from tests.support.architecture import HERE
from tests.support.deployed import Deployed, deploy
from tests.support.fresh_names import fresh
from tests.support.server import Server
from tests.support.service_stack import credentials


@pytest.fixture(scope="module")
def ours(service: Server) -> Iterator[Server]:
    """The server, if it is one that runs functions from here, with its credentials in the environment."""
    if service.pid is None:
        pytest.skip("only our own ministack finds the functions' code in this checkout")
    with credentials():
        yield service


@pytest.fixture(scope="module")
def stack(ours: Server) -> Deployed:
    """The orders example, deployed anew for each module: no other sees what one does to it."""
    return deploy(
        ours,
        fresh("detent"),
        app="examples.orders.app:app",
        concurrency=2,
        visibility=60,
        environment={},
    )


@pytest.fixture(scope="module")
def made(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    if service.pid is None:
        pytest.skip("the folder is packaged for the Python of our own ministack")
    folder = tmp_path_factory.mktemp("a project") / "shop"
    with credentials():
        assert main(["init", str(folder)]) == 0
        # ministack runs functions with a Python of this machine, whatever the template says. So the template is edited,
        # as a user does who wants another. Parameters would not do: `detent deploy` packages for what is written there,
        # and a value given to one deploy, or kept by the stack from the last, would be that of another folder.
        template = folder / "template.yaml"
        text = template.read_text().replace("python3.13", f"python3.{sys.version_info.minor}")
        template.write_text(text.replace("Architectures: [arm64]", f"Architectures: [{HERE}]"))
        yield Project(folder, service, fresh("shop"))


@pytest.fixture
def project(made: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(made.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    return made
