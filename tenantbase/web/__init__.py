"""The HTTP side: routes, limits, and errors as problem documents.

``app.py`` has the routes, ``responses.py`` the answers and their headers, ``problems.py`` the status
of each error, ``guard.py`` the checks before any handler runs, ``server.py`` the life of a
connection.
"""

from tenantbase.web.app import create_app
from tenantbase.web.lifecycle import Lifecycle
from tenantbase.web.server import serve, serving
from tenantbase.web.settings import WebSettings

__all__ = ["Lifecycle", "WebSettings", "create_app", "serve", "serving"]
