"""Where every record lives. The only module that spells partition and sort keys.

A name chosen by a user is always the last part of a key and keys are never split, so no name can be taken for
another record, whatever characters it holds.

    run#<run id>              run                       the run
    run#<run id>              step#<path>               a step run
    run#<run id>#<group>      step#<path>               one of 100 items of a fan-out
    run#<run id>              join#<group>#<step>       who arrived at a join ("" is the root of its tree)
    definitions#<workflow>    <version>                 a definition, stored with the runs it drives
    workflows                 <workflow>                the newest definition of each workflow
    data#<collection>         <key>                     what users commit with `ctx.commit`
    reaper                    reaper                    the run at which the reaper goes on
    timers                    timers                    how far ticks have sent timers
    timers#<minute>#<shard>   <due>#<run id>#<path>     a message for later, put where the queue cannot hold it
    events#<name>#<key>       event#<stamp>#<id>        an event, in the order in which they were stored
    events#<name>#<key>       id#<id>                   when an event with an id of its publisher's was first stored
    events#<name>#<key>       waiter#<run id>#<path>    a step run that waits for one (the name of an event has no #)
    missing-code#<shard>      <run id>                  which of its steps wait for code that no worker has

Index, over runs only:

    runs#<shard>#<workflow>   <part>#<created>#<run id>

    where <part> is live, completed, failed, cancelled, or, of a run that an older detent ended, ended
"""

from __future__ import annotations

from hashlib import blake2b

from detent_state_machine.status import RunStatus
from detent_state_machine.step_path import StepPath
from detent_state_machine.writes import Key

RUN = "run"
STEP_PREFIX = "step#"
WORKFLOWS = "workflows"
EVENT_PREFIX, EVENT_ID_PREFIX, WAITER_PREFIX = "event#", "id#", "waiter#"
REAPER = Key("reaper", "reaper")
TIMERS = Key("timers", "timers")
TIMER_PARTITIONS = "timers#"
LIVE, ENDED = "live", "ended"
"""Parts of the index: of all live runs, and of those that a detent ended which did not tell them apart by status."""
SHARDS = 8
"""Index partitions of a workflow: a partition takes 1,000 writes/s (DynamoDB), a run costs three index writes. And
partitions of the timers of a minute."""


def run_partition(run_id: str, group: int | None = None) -> str:
    return f"run#{run_id}" if group is None else f"run#{run_id}#{group}"


def run_id_of(partition: str) -> str:
    """The run whose partition it is; "" if it is none's."""
    prefix = run_partition("")
    return partition.removeprefix(prefix).partition("#")[0] if partition.startswith(prefix) else ""


def run_key(run_id: str) -> Key:
    return Key(f"run#{run_id}", RUN)


def step_key(run_id: str, path: StepPath) -> Key:
    return Key(run_partition(run_id, path.group), f"{STEP_PREFIX}{path}")


def join_key(run_id: str, step: str, group: int | None = None) -> Key:
    return Key(f"run#{run_id}", f"join#{'' if group is None else group}#{step}")


def missing_code_partition(shard: int) -> str:
    return f"missing-code#{shard}"


def missing_code_key(run_id: str) -> Key:
    return Key(missing_code_partition(shard_of(run_id)), run_id)


def definition_key(workflow: str, version: str) -> Key:
    return Key(f"definitions#{workflow}", version)


def workflow_key(workflow: str) -> Key:
    return Key(WORKFLOWS, workflow)


def timer_partition(bucket: int, shard: int) -> str:
    return f"{TIMER_PARTITIONS}{bucket}#{shard}"


def timer_key(bucket: int, due: int, run_id: str, path: str, fact: str = "") -> Key:
    """`fact`: what the message brings, if it brings something."""
    return Key(timer_partition(bucket, shard_of(run_id)), f"{due:015d}#{run_id}#{path}{fact and f'#{fact}'}")


def timer_bucket(key: Key) -> int:
    return int(key.pk.removeprefix(TIMER_PARTITIONS).partition("#")[0])


def data_key(collection: str, key: str) -> Key:
    return Key(f"data#{collection}", key)


def event_partition(name: str, key: str) -> str:
    return f"events#{name}#{key}"


def event_name_and_key(partition: str) -> tuple[str, str]:
    _, name, key = partition.split("#", 2)
    return name, key


def event_sort(stamp: int, event_id: str) -> str:
    """Orders the events of a name and a key by when they were stored."""
    return f"{EVENT_PREFIX}{stamp:015d}#{event_id}"


def event_id(sort: str) -> str:
    """The id in the sort key of an event; empty if that is."""
    return sort.split("#", 2)[-1]


def waiter_sort(run_id: str, path: str) -> str:
    return f"{WAITER_PREFIX}{run_id}#{path}"


def end_of(prefix: str) -> str:
    """The first sort key behind all that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def shard_of(run_id: str) -> int:
    return blake2b(run_id.encode(), digest_size=1).digest()[0] % SHARDS


def index_partition(workflow: str, shard: int) -> str:
    return f"runs#{shard}#{workflow}"


def index_part(status: RunStatus) -> str:
    """Live runs are apart, and ended ones by their status, so that finding few among many reads the few."""
    return LIVE if status.live else status.value.lower()


def index_sort(part: str, *, created: int, run_id: str) -> str:
    """Orders a part of a workflow's runs by creation."""
    return f"{part}#{created:015d}#{run_id}"
