"""Which steps of a run wait for code that no worker that looked has: one item a run, beside the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from detent_state_machine import keys
from detent_state_machine.errors import CorruptRecord
from detent_state_machine.records import StepRecord
from detent_state_machine.writes import Equals, Item, Missing, PutItem


@dataclass(frozen=True, slots=True)
class MissingCode:
    """`since` has the steps, each with when a worker first handed it on (milliseconds since the epoch)."""

    run_id: str
    since: Mapping[str, int] = field(default_factory=dict[str, int])
    stored: str = ""
    """The attribute as it was read; empty if there was none."""
    expires: int = 0

    @staticmethod
    def from_item(run_id: str, item: Item | None) -> MissingCode:
        """Raises `CorruptRecord`."""
        if item is None:
            return MissingCode(run_id)
        text, expires = item.get("steps"), item.get("expires")
        try:
            since = cast("object", json.loads(str(text)))
        except (ValueError, RecursionError) as error:
            raise _corrupt(run_id) from error
        if not isinstance(since, dict) or not isinstance(text, str) or not isinstance(expires, int):
            raise _corrupt(run_id)
        steps = cast("dict[str, object]", since)
        return MissingCode(
            run_id, {path: at for path, at in steps.items() if isinstance(at, int)}, stored=text, expires=expires
        )

    def waits(self, path: str, record: StepRecord | None) -> bool:
        """Whether the step still waits, given its record: nobody has begun it since."""
        at = self.since.get(path)
        return at is not None and (record is None or (not record.terminal and record.started < at))

    def noted(self, path: str, begun: int, now: int, expires: int) -> PutItem | None:
        """The write that notes the step; None if that is noted already.

        `begun`: when its newest attempt began; 0 if none has. The race it wins: two workers note two steps at once, and
        the second would drop what the first has noted: it is refused, and reads again.
        """
        known = self.since.get(path, 0)
        if known > begun and self.expires - now // 1000 > (expires - now // 1000) // 2:
            return None
        since = {**self.since, path: known if known > begun else now}
        text = json.dumps(since, ensure_ascii=False, separators=(",", ":"))
        expect = Equals("steps", self.stored) if self.stored else Missing()
        return PutItem(keys.missing_code_key(self.run_id), {"steps": text, "expires": expires}, expect)


def _corrupt(run_id: str) -> CorruptRecord:
    return CorruptRecord(
        f"The note of what code run {run_id!r} waits for cannot be read.",
        advice="It was not written by detent, or was changed by hand.",
    )
