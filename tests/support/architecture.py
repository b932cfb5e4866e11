"""What functions run on, if a stand-in for Lambda runs them here."""

from __future__ import annotations

import platform

HERE = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}[platform.machine()]
"""This machine's processor, in Lambda's words."""
