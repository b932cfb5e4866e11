"""Where this suite has run, and where it has not: what is left out says so."""

from __future__ import annotations

import pytest

from tests.stack.places import VARIABLE
from tests.stack.stack import Stack

PLACES = {
    "ministack": f"AWS_ENDPOINT_URL or {VARIABLE} names another place",
    "localstack": f"it was not asked for: {VARIABLE}=localstack, after `make localstack`",
    "account": f"it was not asked for: {VARIABLE}=account, with credentials and a region; it costs some cents",
}


@pytest.mark.parametrize("kind", PLACES)
def test_the_stack_is_deployed_to(kind: str, stack: Stack) -> None:
    if stack.place.kind != kind:
        pytest.skip(f"these scenarios ran on {stack.place.kind}, not on {kind}: {PLACES[kind]}")
    assert stack.client.runs() is not None
    assert (stack.place.endpoint is None) == (kind == "account")
