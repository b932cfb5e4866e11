"""Facts about a deployed stack: plain values, read by `reading`, checked by `detent doctor --stack`.

Whatever could not be read is an `Unread` in place of the value, so that a permission that is missing hides one fact and
no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unread:
    """Something could not be read."""

    why: str
    fix: str = ""
    gone: bool = False
    """It was deleted: AWS says that it does not exist, not that we may not see it."""


Fact: TypeAlias = T | Unread


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """A function that serves the stack. `timeout` in seconds, `memory` in MB."""

    logical: str
    name: str
    runtime: str
    architecture: str
    timeout: int
    memory: int
    state: str
    """Active, Pending, Inactive (idle for weeks) or Failed."""
    update: str
    """Of the last change: Successful, InProgress or Failed."""
    recursive_loop: Fact[str]
    """Allow, or Terminate: Lambda stops a chain of invocations through one queue after about 16."""
    reserved: Fact[int | None]
    """Concurrency kept for this function, and its limit; None if it shares the account's."""
    url_auth: Fact[str | None]
    """Of its URL: AWS_IAM or NONE; None if it has no URL."""


@dataclass(frozen=True, slots=True)
class MappingFacts:
    """An event source mapping of one of the functions."""

    id: str
    function: str
    """Logical name."""
    source: str
    """ARN."""
    state: str
    partial: bool
    """Whether it has `ReportBatchItemFailures`."""
    maximum: int | None
    """Batches at the same time; None: as many as the account has."""
    window: int
    """Seconds it gathers a batch for."""
    last_result: str


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """Times in seconds. The counts are approximate, as SQS gives them."""

    name: str
    url: str
    arn: str
    visibility: int
    retention: int
    max_receives: int | None
    """Deliveries before a message becomes a dead letter; None: never."""
    dead_letters_to: str | None
    visible: int
    in_flight: int
    oldest: Fact[int | None]
    """Age of the oldest message a few minutes ago; None: nothing was measured, which is what idle queues give."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    name: str
    status: str
    indexes: Mapping[str, str]
    """Status by name."""
    expiry: Fact[str | None]
    """The attribute that time to live looks at; None: it is off."""
    recovery: Fact[bool]
    """Point-in-time recovery."""
    peak_writes: Fact[float | None]
    """Write units a second in the busiest minute of the last three hours; None: nothing was measured."""


@dataclass(frozen=True, slots=True)
class AlarmFacts:
    name: str
    state: str | None
    """None: the stack lists it, and it is not there."""
    actions: int
    """That are switched on."""


@dataclass(frozen=True, slots=True)
class RuleFacts:
    name: str
    enabled: bool
    schedule: str
    targets: int


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """Of Lambda in this account and region. Sizes in bytes."""

    concurrency: int
    unreserved: int
    code_size: int
    code_limit: int
    peak: Fact[int | None]
    """Most invocations at the same time in the last three hours; None: nothing was measured."""


@dataclass(frozen=True, slots=True)
class Needed:
    """An action, and what it is about: a logical name, with what is below its ARN."""

    action: str
    on: str


@dataclass(frozen=True, slots=True)
class StepTimeout:
    """A step of a workflow's newest registered definition. `timeout` in seconds."""

    workflow: str
    step: str
    timeout: float


@dataclass(frozen=True, slots=True)
class StackFacts:
    """Everything, by the logical names of template.yaml."""

    name: str
    region: str
    status: str
    resources: Mapping[str, str]
    """Physical ids by logical name, as the stack lists them: it does not notice what is deleted by hand."""
    clock: Fact[float]
    """Seconds that this machine is ahead of AWS."""
    functions: Fact[tuple[FunctionFacts, ...]]
    """Those that are there, of those that serve detent."""
    mappings: Fact[tuple[MappingFacts, ...]]
    queues: Mapping[str, Fact[QueueFacts]]
    """Detent's three by logical name, and the one that a trigger takes messages from as `TriggerQueueArn`."""
    failed_starts_to: Fact[str | None]
    """The ARN of where events go that `Start` failed to start; None: nowhere, they are forgotten."""
    table: Fact[TableFacts]
    public_access: Fact[tuple[str, ...]]
    """The parts of the bucket's block that are missing; none is as it should be."""
    log_retention: Fact[int | None]
    """Days; None: for ever."""
    alarms: Fact[tuple[AlarmFacts, ...]]
    rules: Fact[tuple[RuleFacts, ...]]
    account: Fact[AccountFacts]
    table_quota: Fact[float]
    """Write units a second that one table of the account may take."""
    denied: Mapping[str, Fact[tuple[Needed, ...]]] = field(default_factory=dict[str, "Fact[tuple[Needed, ...]]"])
    """By function: what its role may not do, and has to."""
    steps: Fact[tuple[StepTimeout, ...]] = ()
