"""Tasks that type checkers must refuse: each line marked so has an error, and no other line has."""

from __future__ import annotations

from dataclasses import dataclass

from detent import App, Client, Context


@dataclass
class Order:
    id: str


app = App("shop")


@app.task
def thumbnail(key: str) -> str:
    return key


@app.task(timeout=3)
async def review(order: Order, ctx: Context) -> int:
    return 1


@app.task
def nothing() -> int:
    return 1


@app.task(timout=3)  # refused
def wrong_option(key: str) -> str:
    return key


def use_tasks(client: Client) -> None:
    thumbnail.start(7)  # refused
    thumbnail.start()  # refused
    thumbnail(7)  # refused
    review.run("A-17")  # refused
    nothing.run("A-17")  # refused
    wrong_result: int = thumbnail.run("a.png")  # refused
    wrong_handle: str = review.start(Order("a")).result()  # refused
    client.start(thumbnail)  # refused
    client.start(review, "A-17")  # refused
