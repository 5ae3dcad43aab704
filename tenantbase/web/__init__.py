"""The HTTP side: routes, limits, and errors as problem documents.

``app.py`` says which path is answered by whom, ``problems.py`` which error becomes which status,
``guard.py`` what is refused at the door, ``server.py`` how connections begin and end.
"""

from tenantbase.web.app import create_app
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.server import serve, serving
from tenantbase.web.settings import WebSettings

__all__ = ["Lifecycle", "WebSettings", "create_app", "serve", "serving"]
