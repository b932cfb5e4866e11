from __future__ import annotations

import os

import pytest

from tests.support.lambda_folders import Folders


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "lambda-folders"
    place.mkdir(exist_ok=True)
    return Folders(place)
