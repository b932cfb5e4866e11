"""What a body raised, as its attempt's error, whatever the error's own code does.

Classes of errors run code of their authors here: `__str__`, `__notes__`, properties, a metaclass. What such code raises
becomes part of the text; it never becomes another error.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import cast

from detent_infra.executor import Failed
from detent_state_machine.errors import InputError
from detent_state_machine.records import ErrorInfo

from detent.context import NonRetryable, RetryAfter, asked_pause
from detent.json_values import storable

MAX_LEAVES = 5
"""Errors of a group that its text names."""
MAX_CAUSES = 5
"""Links of `raise … from …` that the text follows."""
MAX_DEPTH = 50
"""Groups in groups that are looked into."""

# Python's own descriptors, so that no attribute or metaclass of an author is asked.
_name_of_class: Callable[[type], str] = type.__dict__["__name__"].__get__
_bases_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_members_of: Callable[[BaseException], tuple[BaseException, ...]] = BaseExceptionGroup.__dict__["exceptions"].__get__
_trace_of: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
_cause_of: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__cause__"].__get__


def failed(error: BaseException) -> Failed:
    """The outcome of a body that raised.

    Of a group each error in it counts, those in groups in it too: one that is not to be retried ends the step, and the
    longest pause that one asks for is kept. A value that does not fit will not fit next time either.
    """
    leaves = list(_leaves(error, 0))
    classes = list(dict.fromkeys(base for one in (error, *leaves) for base in _bases_of(type(one))))
    pauses = [pause for one in leaves if (pause := _pause(one)) is not None]
    return Failed(
        ErrorInfo(
            type=_kind(error),
            message=storable(_text(error, leaves) + _causes(error)),
            trace=storable(_trace(error)),
            kinds=tuple(_name_of_class(base) for base in classes if base is not object),
            retryable=NonRetryable not in classes and InputError not in classes,
            retry_after=max(pauses, default=None),
        )
    )


def _leaves(error: BaseException, depth: int) -> Iterator[BaseException]:
    if BaseExceptionGroup not in _bases_of(type(error)) or depth == MAX_DEPTH:
        yield error
        return
    for one in _members_of(error):
        yield from _leaves(one, depth + 1)


def _pause(error: BaseException) -> float | None:
    if RetryAfter not in _bases_of(type(error)):
        return None
    try:
        return asked_pause(cast("RetryAfter", error).seconds)
    except BaseException:  # noqa: BLE001 - a subclass without it, or with a property
        return None


def _kind(error: BaseException) -> str:
    return _name_of_class(type(error))


def _text(error: BaseException, leaves: list[BaseException]) -> str:
    if leaves[0] is error:
        return _message(error)
    named = "; ".join(_said(leaf) for leaf in leaves[:MAX_LEAVES])
    more = f"; and {len(leaves) - MAX_LEAVES} more" if len(leaves) > MAX_LEAVES else ""
    return f"{_message(error)}: {named}{more}"


def _causes(error: BaseException) -> str:
    """What it was raised from, and that from."""
    said: list[str] = []
    met = {id(error)}
    while (cause := _cause_of(error)) is not None and id(cause) not in met and len(said) < MAX_CAUSES:
        met.add(id(cause))
        said.append(f" (caused by {_said(cause)})")
        error = cause
    return "".join(said)


def _said(error: BaseException) -> str:
    text = _message(error)
    return f"{_kind(error)}: {text}" if text else _kind(error)


def _message(error: BaseException) -> str:
    """Its text; a plain `str`, whatever class `__str__` returns."""
    if type(error) is asyncio.CancelledError and not error.args:
        return "the body cancelled its own task"
    try:
        return str.__str__(str(error))
    except BaseException as broken:  # noqa: BLE001 - the author's own `__str__`
        return f"(its message cannot be shown: {_kind(broken)})"


def _trace(error: BaseException) -> str:
    """The traceback from the author's own code on."""
    here = _trace_of(error)
    try:
        while here is not None and here.tb_frame.f_globals.get("__name__", "").startswith("detent"):
            here = here.tb_next
        return "".join(traceback.format_exception(type(error), error, here))
    except BaseException:  # noqa: BLE001 - its notes, or what else is asked of it
        return "".join([*traceback.format_tb(here), _said(error)])
