"""Events as an author declares them, and how one is published."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from detent_infra.events.publish import NewEvent, publish
from detent_infra.ports import Backend
from detent_state_machine.errors import InputError
from detent_state_machine.events import EventAddress
from typing_extensions import TypeForm

from detent.json_values import Json
from detent.options import check_text, written

_T = TypeVar("_T")

ANY_PAYLOAD: Json[Any] = Json(Any, "The payload of an event", written=True)


class Event(Generic[_T]):
    """A kind of event: its name and the type of its payload. `App.event` makes one."""

    def __init__(self, name: str, type: TypeForm[_T]) -> None:
        """Raises `DefinitionError` for a type that has no JSON form, `InputError` for a name that no store keeps."""
        check_text("event", "name", name)
        EventAddress(name)
        self.name = name
        self.type = type
        self.payload_json: Json[_T] = Json(type, f"The payload of event {name!r}", written=True)

    def __repr__(self) -> str:
        return f"<event {self.name!r}>"


async def publish_to(
    backend: Backend, event: Event[Any] | str, payload: object, *, key: str = "", id: str | None = None
) -> str:
    """Publishes on this backend; see `App.publish`."""
    declared, json = (event.name, event.payload_json) if isinstance(event, Event) else (event, ANY_PAYLOAD)
    check_text("publish", "event", declared)
    if not isinstance(key, str):
        raise InputError(f"`publish(key={written(key)})`: a key is text.", advice=f"Write it as `key={str(key)!r}`.")
    if id is not None:
        check_text("publish", "id", id)
    json.check_complete()
    text = json.write(payload, f"The payload of event {declared!r}")
    return (await publish(backend, NewEvent(EventAddress(declared, key), text, id))).id
