"""Where the running detent was installed from."""

from __future__ import annotations

import json
from importlib.metadata import distribution
from typing import cast


def requirement() -> str:
    """What installs this detent, with what deploying needs, again: `detent[deploy]`, and where it came from if that is
    no package index but a checkout, a file or a repository (PEP 610).
    """
    text = distribution("detent").read_text("direct_url.json")
    place = "" if text is None else _place(cast("dict[str, object]", json.loads(text)))
    return f"detent[deploy] @ {place}" if place else "detent[deploy]"


def _place(origin: dict[str, object]) -> str:
    match origin:
        case {"url": str(url), "vcs_info": {"vcs": str(vcs), "commit_id": str(commit)}}:
            return f"{vcs}+{url}@{commit}"
        case {"url": str(url)}:
            return url
        case _:
            return ""


def installation() -> str:
    """The command for it."""
    return f"pip install '{requirement()}'"
