"""`template.yaml` as data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

TEMPLATE = Path(__file__).parents[2] / "template.yaml"


@cache
def template() -> Mapping[str, Any]:
    """Intrinsic functions are in their long form: `{"Ref": …}`, `{"Fn::GetAtt": ["Queue", "Arn"]}`."""
    decoded, problems = decode(str(TEMPLATE))
    assert not problems, problems
    return dict(json.loads(json.dumps(decoded)))


def properties(name: str) -> Mapping[str, Any]:
    """A resource's properties; a function's include those of `Globals`."""
    resource = template()["Resources"][name]
    shared = template()["Globals"]["Function"] if resource["Type"] == "AWS::Serverless::Function" else {}
    return {**shared, **resource["Properties"]}


def of_type(kind: str) -> list[str]:
    """Names of the resources of a type."""
    return [name for name, resource in template()["Resources"].items() if resource["Type"] == kind]


def statements(role: str) -> Iterator[Mapping[str, Any]]:
    """A role's statements, those under a condition included."""
    for policy in properties(role)["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            yield statement["Fn::If"][1] if "Fn::If" in statement else statement


def allowed(role: str) -> set[tuple[str, str]]:
    """What a role may do, as (action, resource): `("sqs:SendMessage", "Queue")`."""
    return {
        (action, target)
        for statement in statements(role)
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        for target in map(_short, as_list(statement["Resource"]))
    }


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _short(resource: Any) -> str:
    """`Table` of its ARN, `Table/index/runs` of what is below it."""
    match resource:
        case {"Fn::GetAtt": [name, "Arn"]} | {"Ref": name}:
            return str(name)
        case {"Fn::Sub": text}:
            return re.sub(r"^\$\{(\w+)\.Arn\}", r"\1", text)
        case _:
            return str(resource)
