"""docs/python.md says what the code says. Its examples run in test_docs.py."""

from __future__ import annotations

import re

import detent
import detent.testing
from detent import App, Client, Context, DetentError, RunHandle
from detent.testing import Harness

from tests.support.python_page import PAGE, render


def test_the_page_is_what_the_code_generates() -> None:
    page = PAGE.read_text()
    assert page == render(page), "The code says something else now: run `make docs`."


def test_every_call_of_the_main_classes_is_described() -> None:
    page = PAGE.read_text()
    hidden = set(re.findall(r"<!-- api: .* without (.*) -->", page))
    left_out = {name for names in hidden for name in names.split()}
    for cls in (App, Client, Context, RunHandle, Harness):
        calls = {name for name, call in vars(cls).items() if not name.startswith("_") and callable(call)}
        told = {name for name in calls if re.search(rf"^- `{name}\(", page, re.MULTILINE)}
        twins = {f"a{name}" for name in told}
        assert calls - told - twins <= left_out, cls.__name__


def test_every_exported_error_is_in_the_tree() -> None:
    page = PAGE.read_text()
    exported = [each for each in map(vars(detent).get, detent.__all__) if isinstance(each, type)]
    errors = [each.__name__ for each in exported if issubclass(each, DetentError) and each is not DetentError]
    assert [name for name in errors if f"- `{name}` — " not in page] == []
