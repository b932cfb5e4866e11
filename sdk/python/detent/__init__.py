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

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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
    from detent.event import Event
    from detent.info import DeadLetterInfo, FailedAttempt, LogEntry, RunInfo, RunPage, StepInfo
    from detent.markers import not_
    from detent.run_handle import RunHandle
    from detent.runnable import Runnable
    from detent.step import Step
    from detent.task import Task
    from detent.wait import Wait
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
    "Event",
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
    "Wait",
    "Workflow",
    "WrongState",
    "not_",
]

_PLACES: Final = {
    "detent_infra.executor": "Failure",
    "detent_infra.ports": "Conflict",
    "detent_state_machine.definition": "Definition",
    "detent_state_machine.errors": (
        "ConfigurationError CorruptRecord DefinitionError DetentError InputError KeyConflict NewerRecord "
        "NotFound NotSerializable PayloadTooLarge RecordError RunCancelled RunError RunFailed Unavailable "
        "UnknownRun UnknownStep UnknownWorkflow WrongState"
    ),
    "detent_state_machine.records": "ErrorInfo",
    "detent_state_machine.retry": "Retry",
    "detent_state_machine.status": "Delivery RunStatus StepStatus",
    "detent_state_machine.triggers": "Queue",
    "detent_state_machine.writes": "AllOf AnyOf Equals LessThan Missing OneOf",
    "detent.app": "App",
    "detent.changes": "StepChange",
    "detent.client": "Client",
    "detent.commit": "Delete Put Update",
    "detent.event": "Event",
    "detent.context": "Context NonRetryable RetryAfter",
    "detent.info": "DeadLetterInfo FailedAttempt LogEntry RunInfo RunPage StepInfo",
    "detent.markers": "not_",
    "detent.run_handle": "RunHandle",
    "detent.runnable": "Runnable",
    "detent.step": "Step",
    "detent.task": "Task",
    "detent.wait": "Wait",
    "detent.workflow": "Workflow",
}
"""What is taken from which module, as above. A name is loaded when somebody asks for it: `import detent` is cheap."""
_MODULE_OF: Final = {name: module for module, names in _PLACES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if (module := _MODULE_OF.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(importlib.import_module(module), name)
    globals()[name] = found  # the next one finds it without coming here
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
