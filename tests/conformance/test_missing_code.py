"""A run that waits for code which no worker has says so: in its log, and to whoever looks at runs."""

from __future__ import annotations

import asyncio

from detent import App, Client, RunStatus
from detent_infra.engine import Engine
from detent_infra.ops.doctor.run_checks import check_code
from detent_infra.ports import Backend, Received
from detent_infra.runs.missing_code import missing_code
from detent_state_machine.messages import Drive, encode
from detent_state_machine.step_path import StepPath


def same(n: int) -> int:
    return n


def app_of(*steps: str) -> App:
    app = App(url="memory://")
    flow = app.workflow("w", input=int)
    for name in steps:
        flow.step(name=name)(same)
    return app


class Deploys:
    """A run of a workflow with two steps beside each other, on workers with this code or that."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.app = app_of("left", "right")
        self.client = Client("memory://", backend=lambda: backend)
        self.run_id = ""

    async def start(self) -> None:
        self.run_id = (await self.client.astart(self.app.workflows["w"], 1)).id
        [received] = await self.backend.queue.receive(10, wait=1.0, visibility=30.0)
        await self.backend.queue.delete(received.receipt)

    async def drive(self, app: App, step: str) -> None:
        """A worker with this code gets a message for the step."""
        queue = self.backend.queue
        sent = encode(Drive(self.run_id, StepPath(step)))
        await queue.send([sent])
        while True:
            for received in await queue.receive(10, wait=1.0, visibility=30.0):
                assert await Engine(self.backend, app.executor).handle(received)
                await queue.delete(received.receipt)
                if received.body == sent:
                    return

    async def waiting(self) -> set[str]:
        run = await self.client.lifecycle.get(self.run_id)
        return set((await missing_code(self.backend, [run])).get(self.run_id, {}))

    async def told(self) -> list[str]:
        return [line.path async for line in self.client.alogs(self.run_id) if line.engine == "code_missing"]


def test_a_run_says_which_steps_wait_for_code_until_a_worker_begins_them(backend: Backend) -> None:
    async def scenario() -> None:
        runs, other, half = Deploys(backend), app_of("renamed"), app_of("left")
        await runs.start()
        assert (await check_code(backend)).verdict == "ok"
        await runs.drive(other, "left")
        await runs.drive(other, "right")
        assert await runs.waiting() == {"left", "right"}
        finding = await check_code(backend)
        assert (finding.verdict, finding.command) == ("warn", f"detent show {runs.run_id}")
        assert "'left', 'right'" in finding.message
        await runs.drive(half, "left")
        assert await runs.waiting() == {"right"}
        await runs.drive(runs.app, "right")
        assert (await runs.client.aget(runs.run_id)).status is RunStatus.COMPLETED
        assert await runs.waiting() == set()
        assert (await check_code(backend)).verdict == "ok"
        assert sorted(await runs.told()) == ["left", "right"]

    asyncio.run(scenario())


def test_a_step_that_is_handed_on_again_is_neither_noted_nor_told_again(backend: Backend) -> None:
    async def scenario() -> None:
        runs, other = Deploys(backend), app_of("renamed")
        await runs.start()
        for _ in range(3):
            await runs.drive(other, "left")
            run = await runs.client.lifecycle.get(runs.run_id)
            since = (await missing_code(backend, [run]))[runs.run_id]
            await asyncio.sleep(0.002)
            assert since == (await missing_code(backend, [run]))[runs.run_id]
        assert await runs.told() == ["left"]

    asyncio.run(scenario())


def test_a_run_that_has_ended_waits_for_nothing(backend: Backend) -> None:
    async def scenario() -> None:
        runs = Deploys(backend)
        await runs.start()
        await runs.drive(app_of("renamed"), "left")
        await runs.client.acancel(runs.run_id)
        assert await runs.waiting() == set()
        assert (await check_code(backend)).verdict == "ok"

    asyncio.run(scenario())


def test_two_workers_that_note_two_steps_at_once_lose_neither(backend: Backend) -> None:
    async def scenario() -> None:
        runs = Deploys(backend)
        await runs.start()
        other = app_of("renamed")
        bodies = [encode(Drive(runs.run_id, StepPath(step))) for step in ("left", "right")]
        await backend.queue.send(bodies)
        found: list[Received] = []
        while len(found) < 2:
            found += await backend.queue.receive(10, wait=1.0, visibility=30.0)
        engines = [Engine(backend, other.executor) for _ in found]
        await asyncio.gather(*[engine.handle(each) for engine, each in zip(engines, found, strict=True)])
        assert await runs.waiting() == {"left", "right"}

    asyncio.run(scenario())
