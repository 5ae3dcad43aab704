"""The file that holds the results of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(results: dict[str, Any], path: Path) -> None:
    """Write the results, one record per line."""
    parts = []
    for name, part in results.items():
        if isinstance(part, list):
            lines = ",\n".join(json.dumps(record) for record in part)
            parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(part)}")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")
