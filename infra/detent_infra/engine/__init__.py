"""The engine: drives one message at a time, and is the one place that both reads and acts."""

from detent_infra.engine.loop import Engine
from detent_infra.logs.buffer import LogSettings, Origin

__all__ = ["Engine", "LogSettings", "Origin"]
