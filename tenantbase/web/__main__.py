"""``python -m tenantbase.web`` starts the server, as ``tenantbase serve`` does."""

from __future__ import annotations

from tenantbase.process.startup import prepare

if __name__ == "__main__":
    prepare()
    from tenantbase.cli.commands.serve import (  # takes far longer than prepare(), which must be early
        serve,
    )

    serve(prog_name="python -m tenantbase.web")
