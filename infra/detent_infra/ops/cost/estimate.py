"""What a run costs on AWS, worked out from what is stored of it, on any backend.

The protocol is the same everywhere, so a run on SQLite tells what it would have asked of DynamoDB, SQS and S3: the
engine goes through it once more, in memory, and is metered. What the records do not tell is taken as follows:

    requests to the table and to blobs   exact if no worker died, no delivery was doubled, and the run was not cut short
                                         by a failure or a cancel beside a step at work. A worker that died is taken to
                                         have shown that it lives for the last time a lease before its step was given up
    queue requests                       messages that were sent together are received and deleted together, up to 10
                                         at once; others alone. Runs that work at the same time share, and pay less
    write units of failed attempts       with an error of 700 bytes, where a later attempt has overwritten it
    writes of `ctx.commit`               two units each: items below 1 KB
    Lambda's time                        from the start of a delivery's first body to the end of its last, each delivery
                                         on its own, though up to 10 share an invocation; of a run on another backend
                                         the bodies alone, without the writes between them. What nobody saw end is
                                         not known: a worker that died is taken to have worked until its lease ended,
                                         one behind a dead letter or an interrupted step not at all

Left out is what does not belong to a run: registering definitions, empty receives, the tick, alarms, what clients
read, what `detent retry` reads and closes in the old run, what the bodies themselves ask of AWS, and what S3 takes
for storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detent_state_machine import keys
from detent_state_machine.writes import Key

from detent_infra.ops.cost.facts import Facts
from detent_infra.ops.cost.metered import RUN
from detent_infra.ops.cost.metering import Usage, stored_size, with_key
from detent_infra.ops.cost.reenactment import reenact
from detent_infra.ports import Timing


@dataclass(frozen=True, slots=True)
class Estimate:
    """The usage of each step by its path, and of the run's start, end and index entry under `RUN`."""

    parts: Mapping[str, Usage]

    @property
    def usage(self) -> Usage:
        """Of the run as a whole."""
        total = Usage()
        for part in self.parts.values():
            total.add(part)
        return total


def estimate(facts: Facts, timing: Timing | None = None) -> Estimate:
    """What the run has used so far. `timing` says how often a worker shows that it lives (default: that of AWS).

    Call it outside of event loops: it runs one of its own, whose time jumps.
    """
    parts = reenact(facts, timing or Timing())
    for sort_key, item in facts.items.items():
        stored = stored_size(with_key(Key(keys.run_partition(facts.run.run_id), sort_key), item))
        path = sort_key.removeprefix(keys.STEP_PREFIX)
        parts[path if path in parts else RUN].stored_bytes += stored
    return Estimate(parts)
