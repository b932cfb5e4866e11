"""Leases and heartbeats for tests that run in real time."""

from __future__ import annotations

from dataclasses import replace

from detent_infra.ports import Timing

LIVE = Timing(first_heartbeat=0.2, heartbeat=0.3, lease=30.0, visibility=30.0)
"""Nothing comes back while a worker is only slow."""
SHORT = replace(LIVE, lease=3.0, visibility=4.0)
"""For tests that wait until a lease ends, or a message comes back. SQS counts visibility in whole seconds."""
