"""``python -m tenantbase.web``: starts the server, as ``tenantbase serve`` does."""

from tenantbase.main import serve

serve(prog_name="python -m tenantbase.web")
