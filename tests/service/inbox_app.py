"""An application that messages of a queue start."""

from __future__ import annotations

from detent import App, Queue

app = App("inbox")
greetings = app.workflow("greetings", input=str, output=str, on_queue=Queue("greetings-inbox", input="name"))


@greetings.step
def greet(name: str) -> str:
    return f"hello {name}"
