"""Code that runs under a backend uses that backend: in bodies, their tasks and threads; and a test reaches no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from detent import App, Client, RunFailed, RunHandle
from detent.settings import settings
from detent.testing import Harness
from detent_state_machine.errors import ConfigurationError

from tests.scenarios.conftest import OpenHarness


@pytest.fixture(autouse=True)
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the app and the environment say that runs live: nothing may be opened there."""
    file = tmp_path / "real.db"
    monkeypatch.setenv("DETENT_URL", f"sqlite:///{file}")
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield file
    settings.cache_clear()
    assert not file.exists()
    assert not (tmp_path / ".detent").exists()


def test_every_way_to_start_a_run_in_a_body_stays_on_its_backend(harness: OpenHarness, real: Path) -> None:
    app, other = App("t", url=f"sqlite:///{real}"), App("without a url")
    upper = app.workflow("upper", input=str, output=str)

    @upper.step
    def up(text: str) -> str:
        return text.upper()

    elsewhere = other.workflow("elsewhere", input=str)

    @elsewhere.step
    def never(text: str) -> str:
        return text

    everywhere = Client()
    flow = app.workflow("flow", input=str, output=list[str])

    @flow.step
    async def asynchronous(text: str) -> list[str]:
        ways: list[RunHandle[str]] = [
            await upper.astart("a1"),
            await app.client.astart(upper, "a2"),
            await Client().astart(upper, "a3"),
            await everywhere.astart(upper, "a4"),
            await Client(app.url).astart("upper", "a5"),
            await asyncio.create_task(upper.astart("a6")),
            await asyncio.to_thread(upper.start, "a7"),
            await elsewhere.astart("a8"),
        ]
        assert await upper.arun("arun") == "ARUN"
        assert (await everywhere.aget(ways[0].id)).workflow == "upper"
        return [way.id for way in ways]

    @flow.step
    def synchronous(started: list[str] = asynchronous.output) -> list[str]:
        found: list[str] = []

        def begin(start: Callable[..., RunHandle[str]], *given: object) -> None:
            found.append(start(*given).id)

        begin(upper.start, "s1")
        begin(everywhere.start, upper, "s2")
        thread = threading.Thread(target=begin, args=(app.client.start, upper, "s3"))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(begin, upper.start, "s4").result()
            pool.submit(begin, Client().start, upper, "s5").result()
        return started + found

    h = harness(app)
    started = h.run(flow, "x")
    assert len(set(started)) == 13
    for run_id in started:
        assert h.wait_for(h.client.aget(run_id)).run_id == run_id


def test_a_handle_from_a_body_leads_to_the_same_run_outside_of_it(harness: OpenHarness, real: Path) -> None:
    app = App("t", url=f"sqlite:///{real}")
    upper = app.workflow("upper", input=str, output=str)

    @upper.step
    def up(text: str) -> str:
        return text.upper()

    flow = app.workflow("flow", input=str)
    handles: list[RunHandle[str]] = []

    @flow.step
    async def start(text: str) -> None:
        handles.append(await Client().astart(upper, text))

    h = harness(app)
    h.run(flow, "abc")
    assert h.result(handles[0]) == "ABC"


def test_the_apps_own_client_in_a_test_reaches_the_harness(harness: OpenHarness, real: Path) -> None:
    app = App("t", url=f"sqlite:///{real}")
    upper = app.workflow("upper", input=str, output=str)

    @upper.step
    def up(text: str) -> str:
        return text.upper()

    h = harness(app)
    assert h.result(upper.start("abc")) == "ABC"


def test_a_body_in_a_test_that_names_another_backend_is_refused(real: Path) -> None:
    app, other = App("t", url=f"sqlite:///{real}"), App("other", url="aws://production?region=eu-central-1")
    flow = app.workflow("flow", input=str)
    pay = other.workflow("pay", input=str)

    @pay.step
    def never(text: str) -> str:
        return text

    @flow.step
    def start(text: str) -> str:
        return pay.start(text).id

    with Harness(app) as h, pytest.raises(RunFailed, match=r"would use aws://production.*not the test's backend"):
        h.run(flow, "abc")


def test_a_lambda_function_without_the_variable_is_told_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DETENT_URL")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "mine")
    settings.cache_clear()
    app = App("t")
    for client in (app.client, Client()):
        with pytest.raises(ConfigurationError, match="DETENT_URL is not set in this Lambda function"):
            client.runs()
