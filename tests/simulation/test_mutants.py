"""The list of mutants does not rot. That each is caught is proved by `make mutants`, which takes minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutant import SEEDS, Mutant
from tests.simulation.mutants import MUTANTS, REGRESSIONS, ROOT, apply
from tests.support.source_code import parsed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_what_a_mutant_replaces_is_in_the_source_exactly_once(mutant: Mutant, tmp_path: Path) -> None:
    copy = tmp_path / mutant.file
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / mutant.file).read_text())
    before = apply(mutant, tmp_path)
    assert before == (ROOT / mutant.file).read_text()
    assert copy.read_text() != before
    parsed(copy.read_text())


def test_no_mutant_is_noticed_for_a_name_that_is_not_there(tmp_path: Path) -> None:
    """It would break everything, and prove nothing of its rule."""
    for number, mutant in enumerate(MUTANTS):
        text = (ROOT / mutant.file).read_text()
        (tmp_path / f"mutant_{number}.py").write_text(text.replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F822,F823", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_every_mutant_names_tests_that_exist(mutant: Mutant) -> None:
    tests = "".join((ROOT / file).read_text() for file in REGRESSIONS)
    assert mutant.caught_by
    for name in mutant.caught_by:
        assert name == SEEDS or f"def test_{name}(" in tests


def test_at_least_ten_rules_are_guarded_and_none_twice() -> None:
    rules = [mutant.rule for mutant in MUTANTS]
    assert len(set(rules)) == len(rules) >= 10
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
