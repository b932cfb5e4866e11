"""Deploys a template through a CloudFormation change set: what will change is known before anything does.

CloudFormation does the serverless transform itself, so neither the SAM CLI nor anything else is needed. All names of
buckets and stacks are checked to belong to the account that is signed in: somebody else may own a bucket whose name can
be guessed, and would be handed the code.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from detent_state_machine.errors import ConfigurationError, DetentError, Unavailable

from detent_infra.aws.errors import VENDOR_ERRORS, code_of, translate
from detent_infra.aws.resources import PUBLIC_BLOCKS, Clients, outputs_of, stack_called

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef, StackTypeDef

T = TypeVar("T")

POLL = 1.0
"""Seconds between two requests for the state of a change."""
PATIENCE = 300
"""Requests after which we give up waiting for a change set or a clean-up."""
UNSETTLED = 60
"""Tries to delete a change set that CloudFormation is still making: it refuses until it is done."""
_NOTHING = ("didn't contain changes", "No updates are to be performed")
_NEW = ("REVIEW_IN_PROGRESS",)
"""A stack that has a change set and nothing else: it is still to be created."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as it is before the deploy."""

    status: str
    parameters: Mapping[str, str]

    @property
    def exists(self) -> bool:
        return self.status not in _NEW


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """`action` is Add, Modify, Remove or Import. `replaced`: True, False or Conditional."""

    action: str
    logical: str
    kind: str
    replaced: str = "False"


@dataclass(frozen=True, slots=True)
class ChangeSet:
    stack: str
    id: str
    creates: bool
    changes: tuple[ResourceChange, ...]


@dataclass(frozen=True, slots=True)
class StackEvent:
    """What happened to a resource, as CloudFormation reports it."""

    logical: str
    kind: str
    status: str
    reason: str

    @property
    def failed(self) -> bool:
        return self.status.endswith("_FAILED")


class Deployer:
    """Deploys to the account and region of the clients. `sleep` waits for some seconds."""

    def __init__(self, clients: Clients, sleep: Callable[[float], None]) -> None:
        self._clients = clients
        self._sleep = sleep
        self.account = self._ask(lambda: clients.identity.get_caller_identity()["Account"], "the account")
        """Raises `ConfigurationError` without credentials that AWS takes."""

    @property
    def region(self) -> str:
        return self._clients.region

    # ---- before -------------------------------------------------------------------------------------------

    def stack(self, name: str) -> Stack | None:
        """The stack as it is; None if there is none. Waits while its last update is cleaned up.

        Raises `ConfigurationError` for one that cannot be updated.
        """
        stack = self._look(name)
        for _ in range(PATIENCE):
            # All of the update is in use, and only what it replaced is still deleted; an update is refused meanwhile.
            if stack is None or not stack.status.endswith("COMPLETE_CLEANUP_IN_PROGRESS"):
                break
            self._sleep(POLL)
            stack = self._look(name)
        if stack is not None and (refused := refusal(name, stack.status, self.region)):
            raise refused
        return stack

    def _look(self, name: str) -> Stack | None:
        found = stack_called(name, self._clients)
        if found is None or found["StackStatus"] == "DELETE_COMPLETE":
            return None
        given = {each.get("ParameterKey", ""): each.get("ParameterValue", "") for each in found.get("Parameters", [])}
        return Stack(found["StackStatus"], given)

    def code_bucket(self) -> str:
        """The bucket for code of this account and region, made if it is not there. Raises `ConfigurationError`."""
        name = f"detent-code-{self.account}-{self.region}"

        def is_there() -> bool:
            try:
                self._clients.s3.head_bucket(Bucket=name, ExpectedBucketOwner=self.account)
            except ClientError as error:
                if code_of(error) == "403":
                    raise _foreign(name) from None
                if code_of(error) not in ("404", "NoSuchBucket"):
                    raise
                return False
            return True

        if not self._ask(is_there, f"the bucket {name!r}"):
            self._make_bucket(name)
        return name

    def _make_bucket(self, name: str) -> None:
        where: dict[str, Any] = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}

        def make() -> None:
            self._clients.s3.create_bucket(Bucket=name, **({} if self.region == "us-east-1" else where))
            configuration: Any = dict.fromkeys(PUBLIC_BLOCKS, True)
            self._clients.s3.put_public_access_block(
                Bucket=name, PublicAccessBlockConfiguration=configuration, ExpectedBucketOwner=self.account
            )

        self._ask(make, f"the bucket {name!r}")

    def upload(self, file: Path, bucket: str, key: str) -> bool:
        """Stores the file unless something is there: the key is a hash of it. Says whether it was sent."""

        def send() -> bool:
            try:
                self._clients.s3.head_object(Bucket=bucket, Key=key, ExpectedBucketOwner=self.account)
            except ClientError as error:
                if code_of(error) not in ("404", "NoSuchKey"):
                    raise
            else:
                return False
            extra = {"ExpectedBucketOwner": self.account}
            try:
                self._clients.s3_uploads.upload_file(str(file), bucket, key, ExtraArgs=extra)
            except S3UploadFailedError as error:
                # What S3 answered, which boto3 turns into text but keeps as the context.
                raise error.__context__ or error from None
            return True

        return self._ask(send, f"the bucket {bucket!r}")

    # ---- the change set -----------------------------------------------------------------------------------

    def prepare(
        self,
        name: str,
        template_url: str,
        parameters: Mapping[str, str],
        *,
        kept: Sequence[str],
        capabilities: Sequence[str],
        creates: bool,
        label: str,
    ) -> ChangeSet | None:
        """A change set that is ready; None if nothing would change. `kept` parameters stay as the stack has them.

        Raises `ConfigurationError` with CloudFormation's reason if the template or a parameter is refused.
        """
        cloudformation = self._clients.cloudformation
        given: list[Any] = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        given += [{"ParameterKey": key, "UsePreviousValue": True} for key in kept]
        options: Any = {"Capabilities": list(capabilities), "Parameters": given}
        try:
            made = cloudformation.create_change_set(
                StackName=name,
                ChangeSetName=label,
                ChangeSetType="CREATE" if creates else "UPDATE",
                TemplateURL=template_url,
                **options,
            )
        except VENDOR_ERRORS as error:
            if isinstance(error, ClientError) and code_of(error) in ("ValidationError", "InsufficientCapabilities"):
                raise _refused(name, error.response.get("Error", {}).get("Message", "")) from None
            raise translate(error, f"the stack {name!r}") from None
        change_set = ChangeSet(name, made["Id"], creates, ())
        with self.held(change_set):
            status, why = self._settled(name, made["Id"])
            change_set = replace(change_set, changes=self._changes(name, made["Id"]))
        if status == "CREATE_COMPLETE" and (change_set.changes or creates):
            return change_set
        self.discard(change_set)
        if status == "CREATE_COMPLETE" or any(words in why for words in _NOTHING):
            return None
        raise _refused(name, why or status)

    def _settled(self, name: str, change_set: str) -> tuple[str, str]:
        """Status and reason of the change set, once CloudFormation has finished preparing it."""
        for _ in range(PATIENCE):
            found = self._ask(
                lambda: self._clients.cloudformation.describe_change_set(StackName=name, ChangeSetName=change_set),
                f"the stack {name!r}",
            )
            if found["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                return found["Status"], found.get("StatusReason", "")
            self._sleep(POLL)
        raise Unavailable(f"CloudFormation does not finish the change set of {name!r}.", advice="Try again.")

    def _changes(self, name: str, change_set: str) -> tuple[ResourceChange, ...]:
        pages = self._clients.cloudformation.get_paginator("describe_change_set").paginate(
            StackName=name, ChangeSetName=change_set
        )
        listed = self._ask(lambda: [each for page in pages for each in page["Changes"]], f"the stack {name!r}")
        found = [each["ResourceChange"] for each in listed if "ResourceChange" in each]
        return tuple(
            ResourceChange(
                each.get("Action", ""),
                each.get("LogicalResourceId", ""),
                each.get("ResourceType", ""),
                each.get("Replacement", "False"),
            )
            for each in found
        )

    def discard(self, change_set: ChangeSet) -> None:
        """Deletes it, and a stack that exists only for it."""
        cloudformation, name = self._clients.cloudformation, change_set.stack

        def delete() -> bool:
            try:
                cloudformation.delete_change_set(StackName=name, ChangeSetName=change_set.id)
            except ClientError as error:
                if code_of(error) != "InvalidChangeSetStatus":
                    raise
                return False
            return True

        def remove() -> None:
            for _ in range(UNSETTLED):
                if delete():
                    break
                self._sleep(POLL)
            # Looked at again: somebody else may have created the stack meanwhile, which is not ours to delete.
            if (
                change_set.creates
                and cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] in _NEW
            ):
                cloudformation.delete_stack(StackName=name)

        self._ask(remove, f"the stack {name!r}")

    @contextmanager
    def held(self, change_set: ChangeSet) -> Generator[None]:
        """If the block raises, Ctrl-C included, the change set is discarded."""
        try:
            yield
        except BaseException:
            # What is told is why, and not that something is left: the next deploy does not mind.
            with suppress(DetentError):
                self.discard(change_set)
            raise

    # ---- doing it -----------------------------------------------------------------------------------------

    def execute(self, change_set: ChangeSet) -> Iterator[StackEvent]:
        """Executes it, and yields what happens to each resource until CloudFormation is done.

        Raises `ConfigurationError` with the first resource that failed and why, once all is undone.
        """
        name, cloudformation = change_set.stack, self._clients.cloudformation
        seen: set[str] = set()
        self._news(name, seen)
        self._ask(
            lambda: cloudformation.execute_change_set(StackName=name, ChangeSetName=change_set.id),
            f"the stack {name!r}",
        )
        first: StackEvent | None = None
        while True:
            status = self._described(name)["StackStatus"]
            for told in self._news(name, seen):
                event = StackEvent(
                    told.get("LogicalResourceId", ""),
                    told.get("ResourceType", ""),
                    told.get("ResourceStatus", ""),
                    told.get("ResourceStatusReason", ""),
                )
                if event.failed and first is None and "cancelled" not in event.reason.lower():
                    first = event
                yield event
            if not status.endswith("_IN_PROGRESS") or status == "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS":
                break
            self._sleep(POLL)
        if "ROLLBACK" in status or status.endswith("_FAILED"):
            raise _failed(name, status, first, creates=change_set.creates, region=self.region)

    def outputs(self, name: str) -> dict[str, str]:
        return outputs_of(self._described(name))

    def _described(self, name: str) -> StackTypeDef:
        """A stack that is there."""
        return self._ask(
            lambda: self._clients.cloudformation.describe_stacks(StackName=name)["Stacks"][0], f"the stack {name!r}"
        )

    def _news(self, name: str, seen: set[str]) -> list[StackEventTypeDef]:
        """Events that are not in `seen`, the oldest first; adds them to it.

        CloudFormation tells the newest first, so behind a page without news there is none. All since this deploy began
        fit on the first pages.
        """
        pages = self._clients.cloudformation.get_paginator("describe_stack_events").paginate(
            StackName=name, PaginationConfig={"MaxItems": 1000}
        )

        def read() -> list[StackEventTypeDef]:
            found: list[StackEventTypeDef] = []
            for page in pages:
                fresh = [each for each in page["StackEvents"] if each["EventId"] not in seen]
                if not fresh:
                    break
                found += fresh
            return found

        news = self._ask(read, f"the stack {name!r}")
        seen |= {each["EventId"] for each in news}
        return news[::-1]

    @staticmethod
    def _ask(call: Callable[[], T], what: str) -> T:
        try:
            return call()
        except VENDOR_ERRORS as error:
            raise translate(error, what) from None


def refusal(name: str, status: str, region: str) -> DetentError | None:
    """Why a stack in this status cannot be deployed to, and the way out; None if it can."""
    aws = f"--stack-name {name} --region {region}`"
    if status in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"):
        return ConfigurationError(
            f"The stack {name!r} is {status}: it was never whole, and CloudFormation does not go on from there.",
            advice=f"`aws cloudformation delete-stack {aws} deletes it (table and bucket stay); then deploy again.",
        )
    if status == "UPDATE_ROLLBACK_FAILED":
        return ConfigurationError(
            f"The stack {name!r} is {status}: an update failed, and so did undoing it.",
            advice=f"Fix what its events name, then `aws cloudformation continue-update-rollback {aws}.",
        )
    if status.endswith("_IN_PROGRESS") and status not in _NEW:
        return ConfigurationError(
            f"The stack {name!r} is {status}: another deploy is under way.", advice="Try again when it is done."
        )
    return None


def _failed(name: str, status: str, first: StackEvent | None, *, creates: bool, region: str) -> DetentError:
    at = f" at {first.logical} ({first.kind}): {first.reason.rstrip('.')}" if first is not None else ""
    again = f"Fix it; then `aws cloudformation delete-stack --stack-name {name} --region {region}`, and deploy again."
    undone = again if creates else "Fix it, and deploy again: what ran before runs on."
    return ConfigurationError(f"The deploy of {name!r} failed{at}. The stack is {status}.", advice=undone)


def _refused(name: str, why: str) -> DetentError:
    return ConfigurationError(
        f"CloudFormation refused the change of {name!r}: {why.rstrip('.')}.",
        advice="Nothing was changed. Fix template.yaml or the parameters.",
    )


def _foreign(bucket: str) -> DetentError:
    return ConfigurationError(
        f"The bucket {bucket!r} belongs to another account, or you may not look at it: no code is sent there.",
        advice="Name one of your own as `s3_bucket` under [default.deploy.parameters] in samconfig.toml.",
    )
