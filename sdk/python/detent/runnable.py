"""What can be started: a workflow or a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from detent_state_machine.definition import Definition
from detent_state_machine.durations import Seconds

from detent import portal
from detent.json_values import Json

if TYPE_CHECKING:
    from detent.app import App
    from detent.run_handle import RunHandle

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Runnable(Generic[_In, _Out]):
    """A workflow or a task. What takes no input is started without one. Every blocking call has an async twin."""

    app: App
    name: str
    input_json: Json[object]
    output_json: Json[object]

    @property
    def input(self) -> _In:
        """Stands for the input in `when=`."""
        raise NotImplementedError

    @property
    def definition(self) -> Definition:
        """What the engine follows. Raises `DefinitionError`, which says what to fix."""
        raise NotImplementedError

    def write_input(self, value: object, what: str) -> str:
        """The value as the JSON of the input. Raises `InputError` for what the steps would not get as it is."""
        return self.input_json.write(value, what)

    @overload
    def start(
        self: Runnable[None, _Out], /, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> RunHandle[_Out]: ...
    @overload
    def start(
        self, value: _In, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> RunHandle[_Out]: ...
    def start(
        self, value: Any = None, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> RunHandle[Any]:
        """Starts a run and returns at once; when it returns, the run is stored and will be driven to its end.

        With `key`, the same key and input always give the same run, so that a repeated call starts nothing twice.
        `metadata` is kept with the run, to find it by. Raises `InputError` if the value does not fit the input's
        type, `KeyConflict` if the key was used with another input.
        """
        return self.app.client.start(self, value, key=key, metadata=metadata)

    @overload
    async def astart(
        self: Runnable[None, _Out], /, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> RunHandle[_Out]: ...
    @overload
    async def astart(
        self, value: _In, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> RunHandle[_Out]: ...
    async def astart(
        self, value: Any = None, *, key: str | None = None, metadata: Mapping[str, str] | None = None
    ) -> RunHandle[Any]:
        """`start`, async."""
        return await self.app.client.astart(self, value, key=key, metadata=metadata)

    def start_many(
        self,
        values: Sequence[_In],
        *,
        key: Callable[[_In], str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[RunHandle[_Out]]:
        """Starts a run of each value, in batches. `key` makes each value's idempotency key.

        Every value is checked before the first run starts.
        """
        return self.app.client.start_many(self, values, key=key, metadata=metadata)

    async def astart_many(
        self,
        values: Sequence[_In],
        *,
        key: Callable[[_In], str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> list[RunHandle[_Out]]:
        """`start_many`, async."""
        return await self.app.client.astart_many(self, values, key=key, metadata=metadata)

    @overload
    def run(self: Runnable[None, _Out], /, *, key: str | None = None, timeout: Seconds | None = None) -> _Out: ...
    @overload
    def run(self, value: _In, *, key: str | None = None, timeout: Seconds | None = None) -> _Out: ...
    def run(self, value: Any = None, *, key: str | None = None, timeout: Seconds | None = None) -> Any:
        """Starts a run and waits for its result; a worker must be running somewhere.

        Raises `RunFailed`, `RunCancelled`, or `TimeoutError` after `timeout` (seconds, or a `timedelta`; the run goes
        on).
        """
        portal.check_no_loop(f"{self.name}.run(…)", f"{self.name}.arun(…)")
        return self.start(value, key=key).result(timeout)

    @overload
    async def arun(
        self: Runnable[None, _Out], /, *, key: str | None = None, timeout: Seconds | None = None
    ) -> _Out: ...
    @overload
    async def arun(self, value: _In, *, key: str | None = None, timeout: Seconds | None = None) -> _Out: ...
    async def arun(self, value: Any = None, *, key: str | None = None, timeout: Seconds | None = None) -> Any:
        """`run`, async."""
        return await (await self.astart(value, key=key)).aresult(timeout)
