"""The engine: drives one message at a time, and is the one place that both reads and acts."""

from detent_infra.engine.loop import Engine
from detent_infra.engine.session import Origin, Telling

__all__ = ["Engine", "Origin", "Telling"]
