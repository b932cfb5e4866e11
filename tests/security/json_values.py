"""What the fuzz tests are fed: arbitrary JSON, and texts chosen to be taken for something else."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))

HOSTILE = (
    "a#b/../c",
    "run",
    "step#x",
    "join##a",
    "join#0#a",
    "workflows",
    "start",
    "../../etc/passwd",
    "..",
    "a\\b",
    "%2e%2e%2f",
    "'; DROP TABLE items; --",
    '"quoted"',
    "$(id) `id` ${HOME}",
    "{0} %s %(x)s",
    "<script>alert(1)</script>",
    " padded ",
    "é",
    "e\u0301",
    "日本語 🚂",
    "ﬁ",
    "İi",
    "0",
    "-1",
    "null",
    "__class__",
    "#",
    "##",
    "x" * 128,
    "🚂" * 128,
)
"""Names that the compiler accepts, each written to be taken for another key, path or language."""

UNPRINTABLE = ("\x00", "\n", "\r\nforged", "\x1b[2Jcleared", "\x9b31m", "\u202eevil", "\u2028", "\ud800", "a\x7f", "\t")

texts = st.text(max_size=40) | st.sampled_from([*HOSTILE, *UNPRINTABLE, "@start", "@end", "@handled", ""])
any_text = texts | st.text(st.characters(), max_size=20)
"""Lone surrogates too: JSON can spell them, and so can the arguments of a process."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
