"""Who asks the suite of scenarios for a place and does not get it sees it fail, on a laptop too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, "needs a region: set AWS_REGION"), ({"AWS_REGION": "eu-west-1"}, "needs credentials")],
)
def test_an_account_that_was_asked_for_and_cannot_be_used_fails_and_is_not_skipped(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    nowhere = {name: str(tmp_path / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_", "CI"))}
    asked = {"DETENT_TEST_STACK": "account", "AWS_EC2_METADATA_DISABLED": "true", **nowhere, **environment}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/stack/test_places.py"],
        cwd=ROOT,
        env={**kept, **asked},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    assert said in done.stdout
    assert "3 errors" in done.stdout
