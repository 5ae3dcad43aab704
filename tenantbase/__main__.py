"""``python -m tenantbase``: the command line."""

from tenantbase.main import main

main(prog_name="python -m tenantbase")
