"""The end of a stack: what worked is gone, what was stored is not."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from detent import ConfigurationError

from tests.stack.deploy import FUNCTIONS
from tests.stack.stack import Stack


def test_deleting_the_stack_ends_its_functions_and_keeps_what_they_stored(stack: Stack) -> None:
    runs = len(stack.client.runs(limit=1000))
    assert runs > 0
    stack.project.delete(stack.name)
    client = stack.place.client
    for function in FUNCTIONS:
        with pytest.raises(ClientError, match="ResourceNotFound"):
            client("lambda").get_function(FunctionName=stack.resources[function])
    left = client("sqs").list_queues(QueueNamePrefix=stack.name)
    assert left.get("QueueUrls", []) == []
    # What DeletionPolicy retains: every run is still there, and so are the values that did not fit into one.
    assert len(stack.client.runs(limit=1000)) == runs
    assert client("s3").list_objects_v2(Bucket=stack.outputs["BucketName"])["KeyCount"] > 0
    with pytest.raises(ConfigurationError, match="There is no CloudFormation stack"):
        type(stack.client)(stack.url).runs()
