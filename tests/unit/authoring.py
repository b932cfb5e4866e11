"""What tests of declarations share: types to declare with, and what an author reads when one is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from detent import App, DefinitionError, Workflow
from pydantic import BaseModel, Field


class Order(BaseModel):
    id: str
    total: float
    lines: list[dict[str, int]] = []


class Label(BaseModel):
    text: str


@dataclass
class LabelData:
    text: str


class Coded(BaseModel):
    code: str = Field(alias="orderCode")


AnyWorkflow = Workflow[Any, Any]
Declare = Callable[[AnyWorkflow], None]


def workflow(input: Any = Order, output: Any = None) -> AnyWorkflow:
    app = App("shop", url="memory://")
    return app.workflow("orders", input=input, output=output) if output else app.workflow("orders", input=input)


def refusal(declare: Declare, *, input: Any = Order, output: Any = None) -> str:
    """What the author reads."""
    flow = workflow(input, output)

    def attempt() -> None:
        declare(flow)
        flow.definition  # noqa: B018 - compiles

    with pytest.raises(DefinitionError) as refused:
        attempt()
    assert refused.value.advice, "an error without advice does not teach"
    return str(refused.value)
