"""What the tests of deployed stacks share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from detent_infra.ids import new_id

from tests.service.deployed import Deployed, deploy
from tests.service.server import Server
from tests.service.stack import credentials


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
        f"detent-{new_id()[:10]}",
        app="examples.orders.app:app",
        concurrency=2,
        visibility=60,
        environment={},
    )
