"""Values at the limits of what may be stored, for every port."""

from __future__ import annotations

from tenantbase.json_text import MAX_DEPTH

DEEP = "[" * MAX_DEPTH + "]" * MAX_DEPTH
# Each text, with a part of its error message.
REFUSED = {
    "deep": (f"[{DEEP}]", "nested too deeply"),
    "deeper": ("[" * 990 + "]" * 990, "nested too deeply"),
    "deepest": ("[" * 50_000 + "]" * 50_000, "nested too deeply"),
    "lone surrogate": (r'["\ud83d"]', r"lone surrogate, \ud83d"),
}
