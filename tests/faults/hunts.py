"""For each planted bug, the faults that expose it within seconds.

The ordinary torture test with mixed faults finds them, too, but not in every run of a few seconds.
"""

from __future__ import annotations

from typing import Final

from tests.faults.small import Hunt

HUNTS: Final = {
    "odd-before-commit": Hunt(["net-refuse"], ["committed"]),
    "even-after-commit": Hunt(["net-refuse"], ["odd"]),
    "one-lock": Hunt(["net-refuse"], ["odd", "committed"]),
    "skip-when-odd": Hunt(["net-refuse"], ["odd", "committed"], longest=0.1),
    "compare": Hunt(["net-refuse"]),
    "fresh-sequence": Hunt(),
    "load-before-select": Hunt([], ["selected"]),
    "new-epoch": Hunt(["cache-resurrect"], restarts=True),
    "last-of-group": Hunt(["cache-resurrect"], ["locked"], longest=0.06),
    "join-same-tag": Hunt([], ["selected"], longest=0.1),
    "own-tag": Hunt([], ["unlocked"]),
    "checked-mac": Hunt(["cache-poison"]),
    "own-key": Hunt(["cache-poison"]),
    "own-expiry": Hunt(),
    "forget-pages": Hunt(),
    "version-before-page": Hunt([], ["locked", "listed"], longest=0.1),
    "early-acknowledgement": Hunt(),
}
