"""Whatever an app does to Python's logging, and whenever: its lines reach its run, and the engine's are kept."""

from __future__ import annotations

import io
import logging
import logging.config
import logging.handlers
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
from detent import App
from detent.testing import Harness
from detent_infra.logs.standard_logging import forward_standard_logging, keep_engine_lines

OWN = "{ $.engine NOT EXISTS }"
MINE = logging.getLogger("mine")
POOL = ThreadPoolExecutor(1)

Setup = Callable[[Path], None]


def basic(folder: Path) -> None:
    logging.basicConfig(level="INFO", filename=folder / "app.log")


def forced(folder: Path) -> None:
    logging.basicConfig(level="INFO", filename=folder / "app.log", force=True)


def by_dictionary(folder: Path) -> None:
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(folder / "app.log")}}
    root = {"level": "INFO", "handlers": ["file"]}
    logging.config.dictConfig({"version": 1, "handlers": handlers, "root": root, "loggers": {"mine": {}}})


def by_dictionary_apart(folder: Path) -> None:
    """As Django does: a logger of its own that hands nothing on."""
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(folder / "app.log")}}
    mine = {"level": "INFO", "handlers": ["file"], "propagate": False}
    logging.config.dictConfig({"version": 1, "handlers": handlers, "loggers": {"mine": mine}})


def by_queue(folder: Path) -> None:
    target = logging.FileHandler(folder / "app.log")
    lines: queue.Queue[logging.LogRecord] = queue.Queue()
    logging.basicConfig(level="INFO", handlers=[logging.handlers.QueueHandler(lines)], force=True)
    logging.handlers.QueueListener(lines, target).start()


def by_hand(folder: Path) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        if isinstance(handler, logging.FileHandler):
            handler.close()
    root.addHandler(logging.FileHandler(folder / "app.log"))
    root.setLevel("INFO")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    known, level = dict(logging.Logger.manager.loggerDict), root.level
    handlers = list(root.handlers)
    yield
    for handler in {*root.handlers, *MINE.handlers}.difference(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger in known.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
    MINE.handlers.clear()
    MINE.propagate = True
    MINE.setLevel(logging.NOTSET)


def said(body: Callable[[int], int], before: Callable[[], None] = lambda: None) -> list[str]:
    """What the body's run has in its log."""
    before()
    app = App("logging")
    flow = app.workflow("flow", input=int)
    flow.step(name="body")(body)
    with Harness(app) as h:
        run, other = h.start(flow, 1), h.start(flow, 2)
        h.result(run), h.result(other)
        told = [line.engine for line in h.logs(run, "{ $.engine = run* }")]
        assert told == ["run_started", "run_completed"], "the engine's own lines are kept"
        return [line.message for line in h.logs(run, OWN)]


SETUPS = [basic, forced, by_dictionary, by_dictionary_apart, by_queue, by_hand]


@pytest.mark.parametrize("setup", SETUPS)
def test_what_an_app_sets_up_when_it_is_imported_keeps_its_lines_for_file_and_run(setup: Setup, tmp_path: Path) -> None:
    logging.getLogger().handlers.clear()

    def body(n: int) -> int:
        MINE.info("hello %d", n)
        return n

    assert said(body, lambda: setup(tmp_path)) == ["hello 1"]
    if setup is not by_queue:
        assert (tmp_path / "app.log").read_text().count("hello") == 2


@pytest.mark.parametrize("setup", [forced, by_dictionary, by_dictionary_apart, by_queue, by_hand])
def test_a_body_that_resets_logging_loses_no_line(setup: Setup, tmp_path: Path) -> None:
    def body(n: int) -> int:
        MINE.warning("before")
        setup(tmp_path)
        MINE.warning("after")
        return n

    assert said(body) == ["before", "after"]


def test_the_message_of_structlog_is_its_event_and_fields() -> None:
    """structlog's wrapper for `logging` hands a dictionary on, and its own values under names with an underscore."""

    def body(n: int) -> int:
        MINE.warning({"event": "charged", "cents": n, "level": "warning"}, extra={"_logger": object(), "_name": "mine"})
        return n

    app = App("logging")
    flow = app.workflow("flow", input=int)
    flow.step(name="body")(body)
    with Harness(app) as h:
        run = h.start(flow, 1)
        h.result(run)
        [line] = h.logs(run, OWN)
        assert line.message == "charged"
        assert h.logs(run, '{ $.logger = mine && $.cents = 1 && $.level = "WARN" }') == [line]


def test_the_engine_s_own_lines_outlast_a_dictionary_that_does_not_name_them(tmp_path: Path) -> None:
    keep_engine_lines()
    by_dictionary(tmp_path)
    logging.getLogger("detent").warning("the engine says")
    assert "the engine says" in (tmp_path / "app.log").read_text()


def test_whoever_wants_fewer_of_the_engine_s_lines_sets_its_level(tmp_path: Path) -> None:
    keep_engine_lines()
    by_dictionary(tmp_path)
    engine = logging.getLogger("detent")
    engine.setLevel("ERROR")
    try:
        engine.warning("not wanted")
    finally:
        engine.setLevel(logging.NOTSET)
    assert "not wanted" not in (tmp_path / "app.log").read_text()


# ---- threads --------------------------------------------------------------------------------------------------


def by_thread(speak: Callable[[], None]) -> None:
    thread = threading.Thread(target=speak)
    thread.start()
    thread.join()


def by_thread_of_a_thread(speak: Callable[[], None]) -> None:
    by_thread(lambda: by_thread(speak))


class Speaker(threading.Thread):
    def __init__(self, speak: Callable[[], None]) -> None:
        super().__init__()
        self.speak = speak

    def run(self) -> None:
        self.speak()


def by_own_class(speak: Callable[[], None]) -> None:
    thread = Speaker(speak)
    thread.start()
    thread.join()


def by_timer(speak: Callable[[], None]) -> None:
    timer = threading.Timer(0, speak)
    timer.start()
    timer.join()


def by_own_pool(speak: Callable[[], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: speak(), [1]))


def by_pool_of_the_module(speak: Callable[[], None]) -> None:
    POOL.submit(speak).result()


def by_pool_of_multiprocessing(speak: Callable[[], None]) -> None:
    with ThreadPool(1) as pool:
        pool.apply(speak)


@pytest.mark.parametrize(
    "start",
    [
        by_thread,
        by_thread_of_a_thread,
        by_own_class,
        by_timer,
        by_own_pool,
        by_pool_of_the_module,
        by_pool_of_multiprocessing,
    ],
)
def test_lines_of_threads_and_pools_that_a_body_starts_belong_to_its_run(
    start: Callable[[Callable[[], None]], None],
) -> None:
    def body(n: int) -> int:
        start(lambda: MINE.warning("from elsewhere %d", n))
        return n

    assert said(body) == ["from elsewhere 1"]


def test_a_pool_s_thread_that_a_body_made_it_start_belongs_to_no_run_afterwards() -> None:
    pool = ThreadPoolExecutor(1)
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    MINE.addHandler(handler)

    def body(n: int) -> int:
        pool.submit(MINE.warning, "of the body").result()
        return n

    app = App("logging")
    flow = app.workflow("flow", input=int)
    flow.step(name="body")(body)
    with Harness(app) as h:
        run = h.start(flow, 1)
        h.result(run)
        pool.submit(MINE.warning, "of nobody").result()
        assert [line.message for line in h.logs(run, OWN)] == ["of the body"]
    assert printed.getvalue().splitlines() == ["of the body", "of nobody"]


def test_nothing_of_the_standard_library_is_changed_once_the_last_worker_is_gone() -> None:
    before = logging.Logger.callHandlers, threading.Thread.start, ThreadPoolExecutor.submit
    with forward_standard_logging(), forward_standard_logging(only=True):
        assert logging.Logger.callHandlers is not before[0]
    assert (logging.Logger.callHandlers, threading.Thread.start, ThreadPoolExecutor.submit) == before
