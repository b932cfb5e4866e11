"""Definitions by version: from the deployed code where it has them, else from the table, read once."""

from __future__ import annotations

import contextlib
from functools import partial

from detent_state_machine.definition import Definition
from detent_state_machine.errors import CorruptRecord, RecordError, UnknownWorkflow
from detent_state_machine.graph import Graph, graph_of
from detent_state_machine.keys import WORKFLOWS, definition_key, workflow_key
from detent_state_machine.records import Payload, payload_attributes
from detent_state_machine.writes import Item, PutItem

from detent_infra import payloads
from detent_infra.pages import pages
from detent_infra.ports import Backend, Conflict

MAX_CACHED = 256


class Definitions:
    """Reads and stores definitions of one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._graphs: dict[tuple[str, str], Graph] = {}
        self._registered: set[tuple[str, str]] = set()

    async def register(self, definition: Definition) -> None:
        """Stores the definition with the runs it will drive and makes it the workflow's newest. Once per process."""
        name = (definition.name, definition.version)
        if name in self._registered:
            return
        self.cache(definition)
        await self.store(definition)
        # Looked at first, so that a thousand cold starts of one version cost reads, not a thousand writes of one item.
        newest = workflow_key(definition.name)
        item = await self._backend.table.get(newest)
        if item is None or item.get("version") != definition.version:
            registered: Item = {"version": definition.version, "registered": self._backend.clock()}
            await self._backend.table.write(PutItem(newest, registered, expect=None))
        self._registered.add(name)

    async def store(self, definition: Definition) -> None:
        body = await payloads.store(self._backend.blobs, definition.to_json())
        key = definition_key(definition.name, definition.version)
        # A refusal is fine: the key is a hash of the content, so what is stored is this very definition.
        with contextlib.suppress(Conflict):
            await self._backend.table.write(PutItem(key, payload_attributes("definition", body)))

    def cache(self, definition: Definition, version: str | None = None) -> Graph:
        """Has the definition at hand from now on, as deployed code has its own.

        `version`: under which it is stored, if an older detent did: read back, it has fields more and another hash.
        """
        if len(self._graphs) >= MAX_CACHED:
            self._graphs.pop(next(iter(self._graphs)))
        graph = self._graphs[definition.name, version or definition.version] = graph_of(definition)
        return graph

    async def graph(self, workflow: str, version: str) -> Graph:
        """Raises `UnknownWorkflow` if no such definition is stored."""
        known = self._graphs.get((workflow, version))
        return known if known is not None else self.cache(await self._read(workflow, version), version)

    async def newest(self, workflow: str) -> Definition:
        """The definition registered last. Raises `UnknownWorkflow`."""
        item = await self._backend.table.get(workflow_key(workflow)) if workflow else None
        if item is None:
            raise UnknownWorkflow(
                f"No workflow {workflow!r} is registered on {self._backend.url}.",
                advice="Start a worker that has it, or check the name with `detent graph --list`.",
            )
        return (await self.graph(workflow, str(item.get("version")))).definition

    async def names(self) -> list[str]:
        """The registered workflows, in order."""
        query = partial(self._backend.table.query, WORKFLOWS)
        return [key.sk async for page in pages(query) for key, _ in page]

    async def _read(self, workflow: str, version: str) -> Definition:
        item = await self._backend.table.get(definition_key(workflow, version))
        if item is None:
            raise UnknownWorkflow(
                f"Version {version} of workflow {workflow!r} is not stored on {self._backend.url}.",
                advice="It was started from code that never registered it; start a worker with that code.",
            )
        ref, text = item.get("definition_ref"), item.get("definition")
        if not isinstance(ref or text, str):
            raise CorruptRecord(
                f"The record of version {version} of workflow {workflow!r} holds no definition.",
                advice="It was not written by detent, or was changed by hand.",
            )
        body = Payload(ref=str(ref)) if ref else Payload(str(text))
        try:
            return Definition.from_json(await payloads.load(self._backend.blobs, body))
        except RecordError as error:
            message = f"Version {version} of workflow {workflow!r}: {error.message}"
            raise type(error)(message, advice=error.advice) from error
