"""One stack for all scenarios, deployed once: they run in one process, one after the other, the last ones last."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.stack.deploy import deployed
from tests.stack.early import Early, begin
from tests.stack.places import VARIABLE, chosen_place
from tests.stack.stack import Stack
from tests.support.server import NoServer

LAST = ("test_dead_letters", "test_redeploy", "test_delete")
"""Modules after whose tests the stack is not what it was, in their order."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads which group a test is in
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [number for number, item in enumerate(items) if item.nodeid.startswith("tests/stack/")]
    ordered = sorted((items[number] for number in ours), key=lambda item: _when(item.path.stem))
    for number, item in zip(ours, ordered, strict=True):
        item.add_marker(pytest.mark.service)
        items[number] = item


def _when(module: str) -> int:
    return LAST.index(module) + 1 if module in LAST else 0


@pytest.fixture(scope="package")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Early]]:
    """The stack, and what takes long on it under way.

    Without a place it fails where CI is set or the place was asked for, else it is skipped.
    """
    make = tmp_path_factory.mktemp
    try:
        with chosen_place(make("place")) as place, deployed(place, make("project")) as stack:
            yield stack, begin(stack)
    except NoServer as missing:
        if os.environ.get("CI") or os.environ.get(VARIABLE):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def stack(deployment: tuple[Stack, Early]) -> Stack:
    return deployment[0]


@pytest.fixture
def early(deployment: tuple[Stack, Early]) -> Early:
    return deployment[1]
