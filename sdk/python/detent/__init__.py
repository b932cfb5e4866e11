"""detent: durable workflows and AI agents on primitives every cloud has.

from detent import App

app = App("shop")
orders = app.workflow("orders", input=Order)

@orders.step
def reserve(order: Order) -> Reservation: ...

@orders.step
def ship(order: Order, held: Reservation = reserve.output) -> Label: ...

handle = orders.start(order)
"""

from detent_infra.executor import Failure
from detent_infra.ports import Conflict
from detent_state_machine.definition import Definition
from detent_state_machine.errors import (
    ConfigurationError,
    CorruptRecord,
    DefinitionError,
    DetentError,
    InputError,
    KeyConflict,
    NewerRecord,
    NotFound,
    NotSerializable,
    PayloadTooLarge,
    RecordError,
    RunCancelled,
    RunError,
    RunFailed,
    Unavailable,
    UnknownRun,
    UnknownStep,
    UnknownWorkflow,
    WrongState,
)
from detent_state_machine.records import ErrorInfo
from detent_state_machine.retry import Retry
from detent_state_machine.status import Delivery, RunStatus, StepStatus
from detent_state_machine.triggers import Queue
from detent_state_machine.writes import AllOf, AnyOf, Equals, LessThan, Missing, OneOf

from detent.app import App
from detent.changes import StepChange
from detent.client import Client
from detent.commit import Delete, Put, Update
from detent.context import Context, NonRetryable, RetryAfter
from detent.info import DeadLetterInfo, FailedAttempt, LogEntry, RunInfo, RunPage, StepInfo
from detent.markers import not_
from detent.run_handle import RunHandle
from detent.runnable import Runnable
from detent.step import Step
from detent.task import Task
from detent.workflow import Workflow

__all__ = [
    "AllOf",
    "AnyOf",
    "App",
    "Client",
    "ConfigurationError",
    "Conflict",
    "Context",
    "CorruptRecord",
    "DeadLetterInfo",
    "Definition",
    "DefinitionError",
    "Delete",
    "Delivery",
    "DetentError",
    "Equals",
    "ErrorInfo",
    "FailedAttempt",
    "Failure",
    "InputError",
    "KeyConflict",
    "LessThan",
    "LogEntry",
    "Missing",
    "NewerRecord",
    "NonRetryable",
    "NotFound",
    "NotSerializable",
    "OneOf",
    "PayloadTooLarge",
    "Put",
    "Queue",
    "RecordError",
    "Retry",
    "RetryAfter",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunHandle",
    "RunInfo",
    "RunPage",
    "RunStatus",
    "Runnable",
    "Step",
    "StepChange",
    "StepInfo",
    "StepStatus",
    "Task",
    "Unavailable",
    "UnknownRun",
    "UnknownStep",
    "UnknownWorkflow",
    "Update",
    "Workflow",
    "WrongState",
    "not_",
]
