"""The world outside: a bank, a warehouse and a mail server, simulated, with faults that are the same on every run.

Which customer's card is refused and which parcel meets a closed warehouse follows from a checksum of its name, so the
demo's figures can be checked, and running it again after a crash tells the same story.
"""

from __future__ import annotations

import os
from zlib import crc32

REFUSED_PER_MILLE = 20
"""Share of customers whose card is refused."""
CLOSED_PER_MILLE = 50
"""Share of parcels that meet a closed warehouse at their first attempt."""
OUTBOX = "ORDERS_OUTBOX"
"""The environment variable that names the file which mail is written to. Without it, mail goes nowhere."""


class WarehouseClosed(Exception):
    """Nobody answers at the loading ramp. It passes."""


def refuses_card(customer: str) -> bool:
    return _share("card", customer) < REFUSED_PER_MILLE


def closed_at_first(order: str) -> bool:
    return _share("warehouse", order) < CLOSED_PER_MILLE


async def bank_accepts(customer: str, cents: int, *, key: str) -> bool:
    """Charges the card. A real bank would remember `key` and answer a repeated charge without making it again."""
    assert cents > 0
    assert key
    return not refuses_card(customer)


async def warehouse_packs(order: str, cds: int, *, attempt: int) -> str:
    """The parcel's number. Asking again for the same order gives the same parcel."""
    if attempt == 1 and closed_at_first(order):
        raise WarehouseClosed(f"No answer for the {cds} CDs of {order}.")
    return f"P{crc32(order.encode()):08x}"


async def send_mail(order: str, text: str) -> None:
    """Appends one line to the outbox, in one write, so that a crash leaves a whole line or none."""
    outbox = os.environ.get(OUTBOX)
    if outbox is None:
        return
    file = os.open(outbox, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{order}\t{text}\n".encode())
    finally:
        os.close(file)


def _share(what: str, name: str) -> int:
    """A number from 0 to 999 that is the same everywhere."""
    return crc32(f"{what}:{name}".encode()) % 1000
