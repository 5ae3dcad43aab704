"""``python -m tenantbase`` and the program ``tenantbase``: the command line."""

from __future__ import annotations

from tenantbase.process.startup import prepare


def run(prog_name: str | None = None) -> None:
    """Run the command line; does not return."""
    prepare()
    from tenantbase.main import main  # imported late: it is slow, and prepare() must run early

    main(prog_name=prog_name)


if __name__ == "__main__":
    run("python -m tenantbase")
