"""What a fork copies without what makes it true: connections, locks, pools, threads and event loops.

gunicorn with preload, Celery's prefork and multiprocessing's "fork" copy a process that may be at work. Whoever holds
such state is `Forkable`, and either begins anew in the child or says there, at the first call, that it cannot.

    parent's thread that forks       before_fork   waits until nothing that must not be copied half-done is under way
        │                                          and lets go of what a child must not inherit at all
        ├── parent                   in_parent     goes on
        └── child                    in_child      forgets what it inherited: makes new locks, opens anew when needed
"""

from __future__ import annotations

import itertools
import os
import threading
from functools import cached_property
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

_T = TypeVar("_T")


class Forkable:
    """Hears of every fork once `follow_forks` was called with it, for as long as somebody else refers to it."""

    def before_fork(self) -> None:
        """In the thread that forks; another thread may be anywhere."""

    def in_parent(self) -> None:
        """After `before_fork`, in the same thread."""

    def in_child(self) -> None:
        """In the child's only thread. `before_fork` was not called if the fork was none of Python's own."""


def follow_forks(each: Forkable) -> None:
    _known[next(_numbers)] = each


def generation() -> int:
    """Forks between this process and the one that imported this module: another number is another process."""
    notice()
    return _generation


def notice() -> None:
    """At the first call in a child that was forked past Python (by a C library): it is told then."""
    if os.getpid() != _process:
        _in_child()


def abandon(what: object) -> None:
    """Keeps what was inherited from being collected: to close it here would harm the parent, or complain."""
    _abandoned.append(what)


def unlocked_in_children(kind: type[_T]) -> type[_T]:
    """Decorates a class with `cached_property` attributes: in Python 3.11 each has a lock, which a thread may hold."""
    _kinds.append(kind)
    return kind


_numbers = itertools.count()
_known: WeakValueDictionary[int, Forkable] = WeakValueDictionary()
_kinds: list[type] = []
_abandoned: list[object] = []
_generation = 0
_process = os.getpid()
_forking = threading.Lock()
_prepared: list[Forkable] = []


def _all() -> list[Forkable]:
    return [each for found in _known.valuerefs() if (each := found()) is not None]


def _before() -> None:
    _forking.acquire()  # one fork after the other: each holds the locks of everybody
    _prepared[:] = _all()
    for each in _prepared:
        each.before_fork()


def _in_parent() -> None:
    for each in reversed(_prepared):
        each.in_parent()
    _prepared.clear()
    _forking.release()


def _renew_lock(attribute: Any) -> None:
    """Of a cached property, which has a lock before Python 3.12."""
    if hasattr(attribute, "lock"):
        attribute.lock = threading.RLock()


def _in_child() -> None:
    global _generation, _forking, _process
    _generation += 1
    _process = os.getpid()
    _forking = threading.Lock()
    for attribute in (attribute for kind in _kinds for attribute in vars(kind).values()):
        if isinstance(attribute, cached_property):
            _renew_lock(cast("Any", attribute))
    for each in _all():
        each.in_child()
    _prepared.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
