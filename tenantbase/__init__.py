"""A key-value service: durable in SQLite, fast through memcached, never stale."""

__version__ = "0.1.0"
