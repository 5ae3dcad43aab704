"""``python -m tenantbase.web`` starts the server, as ``tenantbase serve`` does."""

from __future__ import annotations

from tenantbase.process.startup import prepare

if __name__ == "__main__":
    prepare()
    # Imported late: it is slow, and prepare() must run early.
    from tenantbase.cli.commands.serve import serve

    serve(prog_name="python -m tenantbase.web")
