"""A URL leads to a backend, or to an error that shows how to write one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import boto3
import pytest
from detent_infra.aws.resources import Clients
from detent_infra.connect import connect, parse_aws
from detent_infra.ports import Timing
from detent_state_machine.errors import ConfigurationError
from detent_state_machine.writes import Key, PutItem

from tests.support.aws_stack import REGION, moto_stack, recorded_calls

PUT = PutItem(Key("p", "s"), {"a": 1})


@pytest.mark.parametrize(
    "url",
    [
        "", "detent.db", "postgres://localhost/detent", "memory:", "memory://name", "sqlite://", "sqlite:///",
        "sqlite:detent.db", "sqlite://detent.db", "sqlite:///folder/", "sqlite:///detent.db?mode=ro", "aws://",
        "aws://1stack", "aws://my_stack", "aws://stack/table", "aws://stack?zone=a", "aws://stack?region",
        "aws://stack?region=", "aws://stack?region=a&region=b", "aws://stack?endpoint=localhost:4566",
        "aws://stack#x", "AWS://stack",
    ],
)  # fmt: skip
def test_a_url_in_no_accepted_form_is_refused_with_the_three_that_are(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        connect(url)
    for form in ("sqlite:///", "aws://<stack>", "memory://"):
        assert form in str(raised.value)


@pytest.mark.parametrize("url", ["aws://AKIA:SECRET@stack", "aws://stack?endpoint=http://user:SECRET@localhost:4566"])
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        connect(url)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("aws://Shop-1", ("Shop-1", None, None)),
        ("aws://shop?region=eu-west-1", ("shop", "eu-west-1", None)),
        ("aws://shop?endpoint=http://localhost:4566&region=us-east-1", ("shop", "us-east-1", "http://localhost:4566")),
        ("aws://shop?endpoint=https%3A%2F%2Fhost", ("shop", None, "https://host")),
    ],
)
def test_an_aws_url_names_stack_region_and_endpoint(url: str, parts: tuple[str, str | None, str | None]) -> None:
    assert parse_aws(url) == parts


def test_memory_is_a_new_backend_each_time() -> None:
    first, second = connect("memory://"), connect("memory://")
    asyncio.run(first.table.write(PUT))
    assert asyncio.run(second.table.get(PUT.key)) is None


def test_the_timing_that_is_given_holds() -> None:
    assert connect("memory://", timing=Timing(lease=3)).timing.lease == 3


@pytest.mark.parametrize("name", ["detent.db", "my folder/100%25.db"])
def test_a_sqlite_path_is_taken_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (f"sqlite:///{name}", f"sqlite:///{tmp_path}/absolute/{name}"):
        backend = connect(url)
        try:
            assert backend.url == url
            asyncio.run(backend.table.write(PUT))
        finally:
            backend.close()
    assert (tmp_path / name).is_file()
    assert (tmp_path / "absolute" / name).is_file()


def create_stack(name: str, outputs: dict[str, str]) -> None:
    template = {
        "Resources": {"Nothing": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {key: {"Value": value} for key, value in outputs.items()},
    }
    boto3.client("cloudformation", region_name=REGION).create_stack(StackName=name, TemplateBody=json.dumps(template))


def test_an_aws_url_leads_to_the_resources_of_the_stack_in_one_request() -> None:
    with moto_stack() as resources:
        create_stack(
            "shop",
            {
                "TableName": resources.table,
                "QueueUrl": resources.queue_url,
                "DeadLetterQueueUrl": resources.dead_letter_url,
                "BucketName": resources.bucket,
                "LogGroupName": resources.log_group,
            },
        )
        with recorded_calls() as calls:
            backend = connect(f"aws://shop?region={REGION}")
        assert [call.operation for call in calls] == ["DescribeStacks"]
        asyncio.run(backend.table.write(PUT))
        assert asyncio.run(backend.table.get(PUT.key)) == PUT.item
        backend.close()


def test_a_missing_stack_is_named_with_the_way_to_create_it() -> None:
    with moto_stack(), pytest.raises(ConfigurationError, match="'shop'") as raised:
        connect(f"aws://shop?region={REGION}")
    assert "detent deploy --stack shop" in str(raised.value)


def test_a_stack_of_something_else_is_refused_with_what_it_lacks() -> None:
    with moto_stack():
        create_stack("shop", {"TableName": "t", "QueueUrl": "q"})
        with pytest.raises(ConfigurationError, match="BucketName, DeadLetterQueueUrl, LogGroupName"):
            connect(f"aws://shop?region={REGION}")


def test_no_region_is_told_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="region"):
        connect("aws://shop")


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {"AWS_REGION": "eu-west-1"}, "eu-west-1"),
        (None, {"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        (None, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-1"),
        (None, {}, "eu-west-3"),
        (None, {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "shop"}, "eu-west-1"),
        (None, {"AWS_PROFILE": "shop"}, "eu-north-1"),
        ("us-west-2", {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, "us-west-2"),
    ],
)
def test_the_region_is_the_one_given_or_what_the_aws_cli_would_find(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    given: str | None,
    environment: dict[str, str],
    expected: str,
) -> None:
    """AWS_REGION, which is all that ECS sets and boto3 does not know, then AWS_DEFAULT_REGION, then the profile's."""
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-west-3\n[profile shop]\nregion = eu-north-1\n")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**environment, "AWS_CONFIG_FILE": str(config)}.items():
        monkeypatch.setenv(name, value)
    with closing(Clients(given, None)) as clients:
        assert clients.region == expected
        assert clients.sqs.meta.region_name == expected


def test_an_endpoint_that_is_none_is_told() -> None:
    with pytest.raises(ConfigurationError, match="endpoint"):
        connect(f"aws://shop?region={REGION}&endpoint=http://a b")


def test_importing_connect_imports_no_adapter() -> None:
    listed = "import sys, detent_infra.connect; print('\\n'.join(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True).stdout
    heavy = {
        "boto3",
        "botocore",
        "sqlite3",
        "asyncio",
        "detent_infra.aws",
        "detent_infra.sqlite",
        "detent_infra.memory",
    }
    assert heavy & set(printed.split()) == set()
